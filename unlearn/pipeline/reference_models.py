"""Further models that metrics compare with, besides the retrained reference; cached.

Twins: unlearned and retrained models of other seeds. Shadows: models of a memorization score.
Shapes: M models, N training samples, T test samples.
"""

import copy
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from unlearn.core.errors import CollapsedError
from unlearn.core.job import Job, change_seeds
from unlearn.core.types import ImageSet
from unlearn.evaluation.evaluator import get_metric
from unlearn.evaluation.predictions import REFERENCE_NEEDS, SeedPairs, ShadowModels
from unlearn.evaluation.reference_distance import has_enough_models, logit_margin
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.inference import compute_logits
from unlearn.pipeline.context import RunContext, original_model_identity
from unlearn.pipeline.trained_models import checkpoint_cache, load_original, train_without
from unlearn.scoring.memorization.memorization import Memorization, draw_subset
from unlearn.storage.checkpoint_cache import TrainedModel

log = logging.getLogger(__name__)

MIN_MODELS = {"twins": 3, "shadows": 8}
SEED_STEP = 1000  # offset of the seeds of twins, so that they differ from those of runs


def reference_options(job: Job) -> dict[str, dict[str, Any]]:
    """Return the options of the metric that needs each kind of reference models, by kind.

    Raises:
        ValueError: If there are too few models.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in job.node("evaluation").values():
        for need in get_metric(entry).needs:
            if need in REFERENCE_NEEDS:
                found[need] = found.get(need, {}) | getattr(entry, "keywords", {})
    number = found.get("twins", {}).get("num_models", MIN_MODELS["twins"])
    if number < MIN_MODELS["twins"]:
        raise ValueError(
            f"evaluation: klom and ulira need num_models of at least {MIN_MODELS['twins']}, got {number}"
        )
    if "shadows" in found:
        score = job.node("score")
        if not isinstance(score, Memorization):
            raise ValueError("evaluation=lira needs the models of score=memorization")
        if score.num_models < MIN_MODELS["shadows"]:
            raise ValueError(
                f"evaluation=lira needs score.num_models of at least {MIN_MODELS['shadows']}, "
                f"got {score.num_models}"
            )
    return found


def collect_references(
    context: RunContext, model: nn.Module, attempt: Callable[..., Any] | None
) -> dict[str, Any]:
    """Return the reference models that the job's metrics need, as fields of ``Predictions``.

    Args:
        context: Data and forget set.
        model: The unlearned model.
        attempt: ``attempt(context, model, seed=, loggers=)`` unlearns; None: nothing was unlearned.
    """
    try:
        return _collect_references(context, model, attempt)
    except CollapsedError as error:  # of a reference model; the run's own row is kept
        log.warning("reference models are missing: %s", error)
        return {}


def _collect_references(
    context: RunContext, model: nn.Module, attempt: Callable[..., Any] | None
) -> dict[str, Any]:
    wanted = reference_options(context.job)
    out: dict[str, Any] = {}
    if "twins" in wanted and attempt is not None and not context.task.step:
        out["twins"] = _train_seed_pairs(context, model, wanted["twins"]["num_models"], attempt)
    if "shadows" in wanted:
        out["shadows"] = load_shadow_models(context)
    if "relearned" in wanted:
        gone = context.task.requested_indices().sort().values
        reference = train_without(context, gone, "the retrained reference")[0]
        loss = compute_forget_loss(
            remove_extra_channels(load_original(context)[0]), _forget_images(context)
        )
        out["relearned"] = tuple(
            count_relearn_steps(m, _forget_images(context), loss, wanted["relearned"])
            for m in (model, reference)
        )
    return out


def _compute_margins(model: nn.Module, context: RunContext) -> torch.Tensor:
    """Return the margins of the training and test samples, (N + T,)."""
    sets = (context.task.train, context.task.test)
    return torch.cat([logit_margin(compute_logits(model, s).cpu(), s.label.cpu()) for s in sets])


def _train_seed_pairs(
    context: RunContext, model: nn.Module, number: int, attempt: Callable[..., Any]
) -> SeedPairs:
    """Return the margins of the run's own model pair and of pairs of other seeds."""
    gone = context.task.requested_indices().sort().values
    own = train_without(context, gone, "the retrained reference")[0]
    pairs = [(_compute_margins(model, context), _compute_margins(own, context))]
    for k in range(1, number):
        seed = int(context.job.config["seeds"]["train"]) + SEED_STEP * k
        seeds: dict[str, int] = dict.fromkeys(("train", "unlearn", "mask"), seed)
        other = replace(
            context.job, config=change_seeds(context.job.config, ("method",), seeds, seed)
        )
        log.info("model pair %d of %d: another original, unlearned and retrained", k, number - 1)
        other = replace(context, job=other)
        start = load_original(other)[0]
        outcome = attempt(other, start, seed=seed, loggers=())
        if outcome.model is None:
            log.warning("excluding a collapsed model pair: %s", outcome.reason)
            continue
        reference = train_without(other, gone, "a retrained reference of another seed")[0]
        pairs.append(
            (_compute_margins(outcome.model, context), _compute_margins(reference, context))
        )
    if len(pairs) < MIN_MODELS["twins"]:
        raise ValueError(
            f"only {len(pairs)} model pair{'s' * (len(pairs) != 1)} left for klom and ulira"
        )
    ours, theirs = (torch.stack(group) for group in zip(*pairs, strict=True))
    return SeedPairs(ours, theirs, len(context.task.train), len(context.task.test))


def check_lira_coverage(context: RunContext) -> None:
    """Check before unlearning that LiRA can evaluate half of the forget set.

    Raises:
        ValueError: If not: a sample needs two models that saw it and two that did not.
    """
    if "shadows" not in reference_options(context.job):
        return
    score: Memorization = context.job.node("score")
    size = len(context.task.train)
    masks = [
        draw_subset(size, score.subset_fraction, score.seed + k) for k in range(score.num_models)
    ]
    share = (
        has_enough_models(torch.stack(masks))[context.task.forget_indices().cpu()]
        .double()
        .mean()
        .item()
    )
    if share < 0.5:
        raise ValueError(
            f"evaluation=lira needs two models that saw a forget sample and two that did not; only "
            f"{share:.0%} of them have that: raise score.num_models={score.num_models}"
        )


def load_shadow_models(context: RunContext) -> ShadowModels:
    """Return the margins of the memorization score's models, from the cache."""
    node = context.job.config["score"]
    score: Memorization = context.job.node("score")
    size = len(context.task.train)

    def train_shadow_models(folder: Path) -> TrainedModel:
        inside, found = [], []
        for k in range(score.num_models):
            seed = score.seed + k
            mask = draw_subset(size, score.subset_fraction, seed)
            own = replace(
                context.job,
                config=context.job.config
                | {"seeds": context.job.config["seeds"] | {"train": seed}},
            )
            model = train_without(replace(context, job=own), (~mask).nonzero().flatten(), "a part")[
                0
            ]
            inside.append(mask)
            found.append(_compute_margins(model, context)[:size].float())
        kept = {"inside": torch.stack(inside), "margin": torch.stack(found)}
        return TrainedModel({}, kept, {})

    who = original_model_identity(context) | {"shadows": node, "forget": []}
    kept = checkpoint_cache(context.job).get_or_train(who, train_shadow_models)[0].records
    return ShadowModels(kept["inside"], kept["margin"].double())


def _forget_images(context: RunContext) -> ImageSet:
    return context.task.train.rows(
        context.task.forget_indices().to(context.task.train.label.device)
    )


def compute_forget_loss(model: nn.Module, data: ImageSet) -> float:
    """Return the mean cross-entropy in eval mode."""
    outputs = compute_logits(model, data)
    return F.cross_entropy(outputs, data.label.to(outputs.device)).item()


def count_relearn_steps(
    model: nn.Module, data: ImageSet, loss: float, plan: Mapping[str, Any]
) -> int:
    """Return the steps on ``data`` until a copy reaches ``loss``; at most ``max_steps``.

    Args:
        model: Not modified.
        data: The forget set, given labels.
        loss: Loss of the original model.
        plan: ``tolerance``: accepted nats above ``loss``; ``max_steps``;
            ``batch_size``; ``optimizer``, called with the parameters; ``seed`` of the order.
    """
    own = copy.deepcopy(model)
    optimizer = plan["optimizer"](own.parameters())
    generator = torch.Generator().manual_seed(plan["seed"])
    device = next(own.parameters()).device
    near = loss + plan["tolerance"]
    rows = itertools.chain.from_iterable(
        torch.randperm(len(data), generator=generator).tensor_split(
            max(1, round(len(data) / plan["batch_size"]))
        )
        for _ in itertools.count()
    )
    for step in range(plan["max_steps"]):
        if compute_forget_loss(own.eval(), data) <= near:
            return step
        own.train()
        batch = next(data.rows(next(rows).to(data.label.device)).batches(len(data)))
        optimizer.zero_grad()
        F.cross_entropy(own(batch.image.to(device)), batch.label.to(device)).backward()
        optimizer.step()
    return int(plan["max_steps"])
