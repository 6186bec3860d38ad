"""Requests in a row: what each asks for, and what the score says of the model before and after.

Source: arXiv 2410.16516. Shapes: N training samples, n forget samples.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlearn.core.job import Job, chosen_option
from unlearn.data.forget_sets.base import hash_indices
from unlearn.data.task import Task
from unlearn.pipeline.context import RunContext
from unlearn.pipeline.sample_scores import score_samples_again
from unlearn.scoring.detection.base import Detector

log = logging.getLogger(__name__)


def check_requests(job: Job) -> None:
    """Check, before anything is trained, that requests can be chosen as they are to be.

    Raises:
        ValueError: If they follow the current model, and the score cannot be taken of it.
    """
    choose: Any = job.node("forget_set")
    if _chosen_at_once(choose):
        return
    node = job.config["score"]
    if node is None or not job.node("score").post_hoc:
        name = chosen_option(job.config, "score") or "none"
        raise ValueError(
            "forget_set.shared_requests=false needs a score that any model has, "
            f"score=holdout_retraining; got {name}"
        )


class SequentialRequests:
    """The requests of a run, one after the other.

    Attributes:
        count: How many there are.
        seen: Scores of all samples, (N,), before the first step and after every one; empty if
            there is one request, or the score needs a model's whole training.
    """

    def __init__(self, context: RunContext) -> None:
        """Count the requests of a setting that holds the first, or all."""
        self.job = context.job
        self.forget_set: Any = context.job.node("forget_set")
        self.shared_requests = _chosen_at_once(self.forget_set)
        self.num_requests = (
            len(context.task.forget) if self.shared_requests else int(self.forget_set.num_requests)
        )
        self.score: Any = context.job.node("score")
        self.tracks_scores = (
            self.num_requests > 1 and self.score is not None and self.score.post_hoc
        )
        self.score_history: list[Tensor] = []

    def select_request(self, step: int, context: RunContext, model: nn.Module) -> RunContext:
        """Return the setting with the request of a step.

        Args:
            step: From 0.
            context: With the requests of all steps before.
            model: That answered them.
        """
        if self.tracks_scores and step == 0:
            self.score_history.append(context.task.records["score"].cpu())
        elif self.tracks_scores:
            values, seconds = score_samples_again(context, model)
            self.score_history.append(values)
            if not self.shared_requests:
                context = self._add_request(context, values, seconds)
        return replace(context, task=replace(context.task, step=step))

    def _add_request(self, context: RunContext, values: Tensor, seconds: float) -> RunContext:
        """Return the setting with one more request, by the score of the current model."""
        task = context.task
        new = self.forget_set.choose_next(values, self.score.center, torch.cat(task.forget))
        forget = (*task.forget, new)
        facts = {
            "forget_set/hash": hash_indices(torch.cat(forget))[:12],
            "forget_set/score_mean": values[new].mean().item(),
            "forget_set/displaced": self.forget_set.notes["displaced"],
            "discovery/size": sum(len(part) for part in forget),
            "score_seconds": seconds,
        }
        task = replace(task, forget=forget, records={**task.records, "score": values})
        return replace(context, task=task, forget_set_facts=context.forget_set_facts | facts)

    def write_histograms(self, context: RunContext, model: nn.Module | None, folder: Path) -> None:
        """Note the score after the last step; leave histograms of all in the run's folder.

        Args:
            context: With all requests that were made.
            model: That answered the last; None: it was lost.
            folder: Of the run.
        """
        if not self.tracks_scores:
            return
        if model is not None:
            self.score_history.append(score_samples_again(context, model)[0])
        from unlearn.reporting.figures import canvas, score_histograms

        table = score_histograms.count_histograms(
            [v.numpy() for v in self.score_history], _request_arrays(context.task)
        )
        table.to_csv(folder / "proxy_histogram.csv", index=False)
        name = str(chosen_option(self.job.config, "score"))
        canvas.save_figure(
            score_histograms.draw_histograms(table, name), folder / "proxy_histogram"
        )
        log.info("score before and after each request: %s", folder / "proxy_histogram.png")


def _request_arrays(task: Task) -> list[Any]:
    return [part.cpu().numpy() for part in task.forget]


def _chosen_at_once(choose: Any) -> bool:
    """Return whether all requests are chosen before the first is answered."""
    return isinstance(choose, Detector) or choose.shared_requests
