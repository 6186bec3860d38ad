"""Successive requests: their samples, and the scores before and after each.

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
    """Check before training that the requests can be chosen.

    Raises:
        ValueError: If they depend on the current model, and the score cannot be computed for it.
    """
    choose: Any = job.node("forget_set")
    if _chosen_at_once(choose):
        return
    node = job.config["score"]
    if node is None or not job.node("score").post_hoc:
        name = chosen_option(job.config, "score") or "none"
        raise ValueError(
            "forget_set.shared_requests=false needs a score that works on any model, "
            f"score=holdout_retraining; got {name}"
        )


class SequentialRequests:
    """The successive requests of a run.

    Attributes:
        num_requests: Number of requests.
        score_history: Scores of all samples, (N,), before the first step and after every one; empty if
            there is one request, or the score needs a model's whole training.
    """

    def __init__(self, context: RunContext) -> None:
        """Count the requests of a context that holds the first or all of them."""
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
        """Return the context with the request of a step.

        Args:
            step: Index of the request, from 0.
            context: Context with the requests of all earlier steps.
            model: Model after the earlier steps.
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
        """Return the context with one more request, by the score of the current model."""
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
        """Record the score after the last step; write histograms to the run's folder.

        Args:
            context: Context with all requests.
            model: Model after the last request; None if it collapsed.
            folder: Folder of the run.
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
    """Return whether all requests are chosen before the first step."""
    return isinstance(choose, Detector) or choose.shared_requests
