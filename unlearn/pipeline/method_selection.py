"""RUM's automatic selection: the best candidate per part, on seeds that no result uses.

After arXiv 2406.01257 ("best algorithm per subset", which does not say how it is found); ours: each
candidate unlearns each part alone and is ranked by its closeness to retraining, with held-out images
in place of the test set. Methods see neither these images nor the ranking.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearn.core.job import Job, change_seeds
from unlearn.evaluation.intervals import confidence_half_width
from unlearn.evaluation.metrics import compute_tow
from unlearn.evaluation.predictions import Predictions, predict_task
from unlearn.evaluation.retrain_gap import compute_mia
from unlearn.pipeline.context import RunContext, original_model_identity
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.trained_models import checkpoint_cache, load_original, train_without
from unlearn.storage.checkpoint_cache import TrainedModel

log = logging.getLogger(__name__)

METRICS = ("tow", "tow_mia")
RunMethod = Callable[..., Any]
"""``attempt(context, model, seed=, loggers=)``: one unlearning, with its model and seconds."""


def select_best(
    scores: Mapping[str, Sequence[float]], seconds: Mapping[str, Sequence[float]]
) -> str:
    """Return the name with the highest mean; of those within its 95 % interval, the cheapest.

    Args:
        scores: A value per seed, by name.
        seconds: Duration of each.
    """
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    top = max(means, key=means.__getitem__)
    margin = np.nan_to_num(confidence_half_width(list(scores[top])))  # one seed has no interval
    tied = [name for name, value in means.items() if value >= means[top] - margin]
    return min(tied, key=lambda name: (float(np.mean(seconds[name])), -means[name]))


def needs_selection(job: Job) -> bool:
    """Return whether there is anything to choose.

    Raises:
        ValueError: If mode and auto_methods do not go together, or no images are held out.
    """
    config, auto = job.config, job.config["method"].get("mode") == "auto"
    node = config.get("auto_methods")
    if auto != (node is not None):
        raise ValueError("method.mode=auto and auto_methods=refined (or another group) go together")
    if not auto or node is None:
        return False
    if config.get("validation") is None:
        raise ValueError("auto_methods are evaluated on held-out images: set validation=0.1")
    if node["metric"] not in METRICS or not node["seeds"] or not node["methods"]:
        raise ValueError(
            "auto_methods must have methods, seeds and a metric of "
            f"{', '.join(METRICS)}, got metric {node['metric']}, seeds {node['seeds']}"
        )
    if set(node["seeds"]) & set(config["seeds"].values()):
        raise ValueError(
            f"auto_methods.seeds must differ from the run's seeds, got {node['seeds']}"
        )
    for candidate in node["methods"].values():
        job.build(candidate)
    return True


def choose_methods(job: Job, attempt: RunMethod) -> tuple[Job, dict[str, Any]]:
    """Return the job with the chosen method for each part, and what was chosen, for the row."""
    if not needs_selection(job):
        return job, {}
    node = job.config["auto_methods"]
    rows = [row for seed in node["seeds"] for row in _score_candidates(job, seed, attempt)]
    steps: dict[str, Any] = {}
    facts: dict[str, Any] = {"chosen/seconds": sum(row["seconds"] for row in rows)}
    for part in job.config["method"]["order"]:
        own = [row for row in rows if row["part"] == part]
        values, seconds = (
            {n: [r[key] for r in own if r["method"] == n] for n in node["methods"]}
            for key in (node["metric"], "seconds")
        )
        name = select_best(values, seconds)
        steps[part], facts[f"chosen/{part}"] = node["methods"][name], name
        shown = ", ".join(f"{n} {np.mean(v):.3f}" for n, v in values.items())
        log.info("part %s: selected %s by held-out %s (%s)", part, name, node["metric"], shown)
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "choice.json").write_text(json.dumps(rows, indent=1))
    method = job.config["method"] | {"steps": steps}
    return replace(job, config=job.config | {"method": method}), facts


def _score_candidates(job: Job, seed: int, attempt: RunMethod) -> list[dict[str, Any]]:
    """Return part, method, metrics and seconds of every candidate on every part, for one seed."""
    drawn = ("score", "forget_set", "method", "auto_methods")
    seeds = dict.fromkeys(job.config["seeds"], seed)
    own = replace(job, config=change_seeds(job.config, drawn, seeds, seed))
    context = load_with_forget_set(own)
    held = context.dataset.validation
    assert held is not None
    context = replace(context, task=replace(context.task, test=held))
    model = load_original(context)[0]
    request = context.task.request()
    parts = job.build(own.config["method"]["partition"])(model, request)
    rows = []
    for part, places in parts.items():
        forget = request.forget.index.cpu()[places]
        now = replace(context, task=replace(context.task, forget=(forget,)))
        for name, node in own.config["auto_methods"]["methods"].items():
            found = _score_candidate(now, node, model, attempt)
            rows.append({"seed": seed, "part": part, "method": name} | found)
    return rows


def _score_candidate(
    context: RunContext, node: dict[str, Any], model: torch.nn.Module, attempt: RunMethod
) -> dict[str, Any]:
    """Return metrics and seconds of one candidate on one part, from the cache or measured."""
    forget = context.task.forget_indices()

    def run_candidate(folder: Path) -> TrainedModel:
        plain = {"method": node, "auto_methods": None, "localization": None, "budget": None}
        inner = replace(context.job, config=context.job.config | plain, folder=folder)
        seed = context.job.config["seeds"]["unlearn"]
        outcome = attempt(replace(context, job=inner), model, seed=seed, loggers=())
        notes = dict.fromkeys(METRICS, 0.0)  # of a model whose loss was lost
        if outcome.model is not None:
            said = predict_task(outcome.model, context.task)
            reference = _predict_reference(context, forget)
            found = compute_tow(said, context.task, reference) | compute_mia(
                said, context.task, reference
            )
            notes = {key: found[key] for key in METRICS}
        return TrainedModel({}, {}, notes | {"seconds": outcome.seconds})

    who = original_model_identity(context) | {"candidate": node, "forget": forget.tolist()}
    return checkpoint_cache(context.job).get_or_train(who, run_candidate)[0].notes


def _predict_reference(context: RunContext, forget: torch.Tensor) -> Predictions:
    network, _, _ = train_without(context, forget, "the retrained reference of a part")
    return predict_task(network, context.task)
