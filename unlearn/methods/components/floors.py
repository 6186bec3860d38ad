"""What a network that never saw the forget set would say of it, estimated from the original alone.

Removal below this floor unlearns more than was learned: a network that never saw two similar classes
mislabelled confuses them as well. The floor is a confusion between classes, read off shifted images
of the retain set. (Stored images are memorized, so confusions on them are too rare; a network
retrained without the forget set learns a half-discovered backdoor again; so do neighbours in feature
space.) docs/floors.md compares the estimators.

Shapes: N samples, F forget samples, B batch, K classes.
"""

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import ImageSet, Request
from unlearn.methods.components.agreement import drop_listed
from unlearn.methods.components.samples import select_evenly_spaced
from unlearn.models.inference import compute_logits

SHIFT = 0.125
"""Maximum shift as a share of the image side: large enough that memorized images are not recognized."""
MIN_SHIFT = 1
"""Least maximum shift, in pixels."""
DRAWS = 4
"""Number of shifts."""
COVERS = 3
"""Covers per side: squares with 1 / COVERS of the image side, evenly spaced."""
MAX_IMAGES = 2_000
"""Number of retain samples from which confusions are counted, at most."""
MAX_COVERED = 256
"""Number of retain samples on which covered copies are measured, at most."""
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Floors:
    """Estimates for a forget set.

    Attributes:
        index: Indices of the forget set, int64 (F,).
        rate: Probability that a network which never saw the sample predicts its given label, (F,).
        other: Its distribution over the other classes, 0 at the given label, (F, K).
        images: Number of images that were measured.
    """

    index: Tensor
    rate: Tensor
    other: Tensor
    images: int

    @property
    def mean(self) -> float:
        """Mean rate, in [0, 1]: the accuracy on given labels to which removal should lead."""
        return float(self.rate.mean())

    def rows(self, keep: Tensor) -> "Floors":
        """Return the estimates of the samples at positions ``keep``, int64 (n,)."""
        return replace(self, index=self.index[keep], rate=self.rate[keep], other=self.other[keep])

    def make_table(self, size: int) -> Tensor:
        """Return the rates by index, float (size,); 0 for samples outside the forget set."""
        table = torch.zeros(size)
        table[self.index] = self.rate
        return table


def estimate_floors(model: nn.Module, request: Request) -> Floors:
    """Return the floors of a request's forget set.

    The true class of a sample with a wrong label is taken to be the most probable other class over
    shifted copies and copies of which a part is covered: a covered trigger shows the true class. Each
    kind of copy is weighted by the squared mean probability of the labels of retain samples under it. Any
    label is right by chance with probability 1 / K, as on images of a backdoor's target class, so no
    rate is below the accuracy of the given class divided by K.

    Args:
        model: The original, on the device of the batches.
        request: Its forget set has wrong labels if ``request.wrong_labels``, else right ones.
    """
    retain = select_evenly_spaced(request.retain, MAX_IMAGES)
    some = select_evenly_spaced(request.retain, MAX_COVERED)
    shifted = compute_shifted_probabilities(model, retain)
    confusion = _count_confusions(shifted, retain)
    own = compute_shifted_probabilities(model, request.forget) * _rate_change(shifted, retain)
    trust = _rate_change(compute_covered_probabilities(model, some), some)
    own += compute_covered_probabilities(model, request.forget) * trust
    given, classes = request.forget.label.cpu(), request.forget.num_classes
    other = drop_listed(own, given)
    right = confusion[given, given]
    rate = torch.maximum(confusion[other.argmax(1), given], right / classes)
    rate = rate if request.wrong_labels else right
    images = DRAWS * len(retain) + COVERS**2 * len(some)
    images += (DRAWS + COVERS**2) * len(request.forget)
    return Floors(request.forget.index.cpu(), rate, other, images)


def compute_shifted_probabilities(model: nn.Module, data: ImageSet) -> Tensor:
    """Return the mean predicted distribution over shifted copies of each image, float32 (N, K)."""
    draw = torch.Generator().manual_seed(0)
    most = max(MIN_SHIFT, int(SHIFT * get_side(data)))
    total = torch.zeros(len(data), data.num_classes)
    for _ in range(DRAWS):
        down, right = torch.randint(0, 2 * most + 1, (2,), generator=draw).tolist()

        def shift(image: Tensor, down: int = down, right: int = right) -> Tensor:
            wide = F.pad(image, [most] * 4, mode="replicate")
            height, width = image.shape[-2:]
            return wide[..., down : down + height, right : right + width].contiguous()

        total += compute_logits(model, data, change=shift).softmax(1).cpu()
    return total / DRAWS


def compute_covered_probabilities(model: nn.Module, data: ImageSet) -> Tensor:
    """Return the mean predicted distribution over partly covered copies of each image, float32 (N, K).

    Each copy has one square of the image's mean color; the squares are evenly spaced.
    """
    side = get_side(data)
    width = -(-side // COVERS)
    starts = [k * (side - width) // (COVERS - 1) for k in range(COVERS)]
    total = torch.zeros(len(data), data.num_classes)
    for top, left in itertools.product(starts, starts):

        def cover(image: Tensor, top: int = top, left: int = left) -> Tensor:
            square = torch.zeros_like(image, dtype=torch.bool)
            square[..., top : top + width, left : left + width] = True
            return torch.where(square, image.mean((-2, -1), keepdim=True), image)

        total += compute_logits(model, data, change=cover).softmax(1).cpu()
    return total / COVERS**2


def _rate_change(predicted: Tensor, data: ImageSet) -> float:
    """Return the squared mean probability of the given labels on changed images, in [0, 1]."""
    return float(predicted.gather(1, data.label.cpu()[:, None]).mean()) ** 2


def get_side(data: ImageSet) -> int:
    """Return the width of the images as networks see them, in pixels; stored ones may be packed."""
    return next(data.batches(1)).image.shape[-1] if len(data) else MIN_SHIFT


def _count_confusions(predicted: Tensor, data: ImageSet) -> Tensor:
    """Return the mean prediction (K, K) of the samples of each given label."""
    label, classes = data.label.cpu(), data.num_classes
    sums = torch.zeros(classes, classes).index_add_(0, label, predicted)
    return sums / torch.bincount(label, minlength=classes).clamp(min=1)[:, None]


def exceeds_floor(count: int, total: int, floor: float) -> bool:
    """Return whether ``count`` of ``total`` samples with their given label exceed a floor.

    One-sided binomial test at the level 0.05.
    """
    from scipy.stats import binom

    return bool(binom.sf(count - 1, total, floor) < SIGNIFICANCE)
