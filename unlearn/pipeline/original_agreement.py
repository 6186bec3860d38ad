"""Whether a user's model fits its data: its agreement with the labels, and likely causes if not.

Shapes: n samples, K classes, C H W image.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import ImageSet
from unlearn.data.datasets.normalization import Normalize
from unlearn.evaluation.evaluator import find_collapse
from unlearn.evaluation.metrics import accuracy
from unlearn.evaluation.predictions import Predictions
from unlearn.models.surgery import eval_mode
from unlearn.pipeline.context import RunContext

log = logging.getLogger(__name__)

MIN_GAIN = 0.2
"""Gain in accuracy at which another order of classes or another input is taken to be the right one."""

DOUBTED = 0.8
"""Agreement below which other inputs are tried."""

FITTING = 0.7
"""Accuracy from which an order of classes is taken to be right: some fit an untrained model a little."""

TRIED = 256  # images on which other inputs are tried
PROBED, PIXELS = 2000, 8  # images, and their height and width, of the linear map
PROBE_MARGIN = 0.1
SCALES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "no normalization": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "-1 to 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "of ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0 to 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""Usual means and deviations of images in [0, 1]; black and white images use the first channel's."""

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Misfit:
    """Why a model does not fit its data.

    Attributes:
        reason: In one line, with the remedy.
        certain: Whether the remedy was tried and works.
    """

    reason: str
    certain: bool


def check_agreement(context: RunContext, model: nn.Module, before: Predictions) -> None:
    """Log how a checkpoint agrees with the given labels; refuse one that does not fit its data.

    Raises:
        ValueError: If it is no better than chance or than a linear map of small images, or another
            input or order of classes fits much better.
    """
    path, task = context.job.config["checkpoint"], context.task
    given = task.train.label.cpu()
    log.info(
        "original model: %.1f%% of the images outside the list and %.1f%% of those on it are labelled "
        "as given",
        *(
            100 * accuracy(before.train[rows.cpu()], given[rows.cpu()])
            for rows in (task.retain_indices(), task.forget_indices())
        ),
    )
    found = find_misfit(context, model, before)
    if found is None:
        return
    if found.certain and context.job.config.get("class_order") and "class_order" in found.reason:
        log.warning("checkpoint %s: %s", path, found.reason)
        return
    raise ValueError(f"checkpoint {path} {found.reason}")


def find_misfit(context: RunContext, model: nn.Module, before: Predictions) -> Misfit | None:
    """Return why a model does not fit its data; None if it does, as far as can be told."""
    train, k = context.task.train, context.task.train.num_classes
    given, rows = train.label.cpu(), context.task.retain_indices().cpu()
    retain = accuracy(before.train[rows], given[rows])
    said = f"labels only {retain:.1%} of the images outside the list as given"
    better = _try_order(before.train[rows], given[rows], context.dataset.class_names, retain)
    if better is None and retain < DOUBTED:
        better = _try_inputs(model, train.rows(_spread(rows, TRIED).to(train.label.device)))
    if better is not None:
        return Misfit(f"{said}; {better}", certain=True)
    reason = find_collapse({"test/accuracy": retain}, k)
    hint = "check dataset.mean, dataset.std, dataset.image_size and class_order"
    if reason is not None:
        return Misfit(f"{said}, no better than chance with {k} classes; {hint}", certain=False)
    if retain < DOUBTED:
        usual = score_linear_map(train.rows(_spread(rows, PROBED).to(train.label.device)))
        if usual is not None and retain < usual - PROBE_MARGIN:
            size = f"{PIXELS} x {PIXELS} pixels"
            return Misfit(
                f"{said}; a linear map of {size} reaches {usual:.1%}: {hint}", certain=False
            )
    return None


def _spread(rows: Tensor, most: int) -> Tensor:
    """Return at most ``most`` rows, evenly spread."""
    step = max(1, -(-len(rows) // most))
    return rows[::step]


def _try_order(outputs: Tensor, given: Tensor, names: Sequence[str], value: float) -> str | None:
    """Return the order of classes that fits much better than the given one; None if none does."""
    k = outputs.shape[1]
    order = best_order(outputs.argmax(1), given, k)
    other = float((torch.tensor(order)[outputs.argmax(1)] == given).float().mean())
    if other <= value + MIN_GAIN or other < FITTING:
        return None
    named = ",".join(names[c] for c in order)
    return f"class_order=[{named}] fits its outputs better (accuracy {other:.2f})"


def best_order(predicted: Tensor, given: Tensor, num_classes: int) -> list[int]:
    """Return the best matching class of each output, one to one (Hungarian algorithm).

    Args:
        predicted: Index of the largest output, (n,).
        given: Class, (n,).
        num_classes: K.
    """
    from scipy.optimize import linear_sum_assignment  # here, since it takes 20 MB

    pairs = torch.bincount(predicted * num_classes + given, minlength=num_classes**2)
    _, columns = linear_sum_assignment(-pairs.view(num_classes, num_classes).numpy())
    return [int(c) for c in columns]


def list_inputs(data: ImageSet) -> Iterator[tuple[str, Change]]:
    """Yield other inputs to try: how to set them, and the function of the present input."""
    if not isinstance(data.view, Normalize):
        yield "divide the images by 255", lambda x: x / 255
        yield "multiply the images by 255", lambda x: 255 * x
        if data.image.shape[1] == 3:
            yield "reverse the order of the channels (RGB, BGR)", lambda x: x.flip(1)
        return
    mean, std = (torch.tensor(part)[:, None, None] for part in (data.view.mean, data.view.std))
    c = len(mean)
    for name, scale in SCALES.items():
        new_mean, new_std = (torch.tensor(part[:c])[:, None, None] for part in scale)

        def rescale(x: Tensor, a: Tensor = new_mean, b: Tensor = new_std) -> Tensor:
            return (x * std.to(x) + mean.to(x) - a.to(x)) / b.to(x)

        texts = [",".join(f"{v:.6g}" for v in part[:c]) for part in scale]
        yield f"dataset.mean=[{texts[0]}] dataset.std=[{texts[1]}] ({name})", rescale
    if c == 3:

        def reverse(x: Tensor) -> Tensor:
            return ((x * std.to(x) + mean.to(x)).flip(1) - mean.to(x)) / std.to(x)

        yield "the model reads BGR: reverse the input channels of its first layer", reverse


def _try_inputs(model: nn.Module, data: ImageSet) -> str | None:
    """Return the input that fits much better than the present one; None if none does."""
    now = _measure(model, data, lambda x: x)
    scores = {name: _measure(model, data, change) for name, change in list_inputs(data)}
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None or scores[best] <= now + MIN_GAIN:
        return None
    return f"another input fits better (accuracy {scores[best]:.2f}): {best}"


def _measure(model: nn.Module, data: ImageSet, change: Change) -> float:
    device = next(model.parameters()).device
    hits = 0
    with eval_mode(model):
        for batch in data.batches(64, device=device):
            hits += int((model(change(batch.image)).argmax(1) == batch.label).sum())
    return hits / len(data)


def score_linear_map(data: ImageSet) -> float | None:
    """Return the accuracy of a linear map (ridge regression) of small images; None for few images.

    Fitted to one half of the images and measured on the other, it is what any trained model should
    reach on images that it was trained on.
    """
    if len(data) < 20 * data.num_classes:
        return None
    small = torch.cat(
        [F.adaptive_avg_pool2d(batch.image, PIXELS).flatten(1).cpu() for batch in data.batches(256)]
    ).double()
    small = torch.cat(
        [(small - small.mean(0)) / (small.std(0) + 1e-6), torch.ones(len(small), 1)], 1
    )
    label = data.label.cpu()
    target = F.one_hot(label, data.num_classes).double()
    fit, rest = torch.arange(len(label)) % 2 == 0, torch.arange(len(label)) % 2 == 1
    gram = small[fit].T @ small[fit] + 10.0 * torch.eye(small.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, small[fit].T @ target[fit])
    return float(((small[rest] @ weight).argmax(1) == label[rest]).double().mean())
