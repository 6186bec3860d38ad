"""Label noise that depends on the image: a wrong label is one that the pixels speak for.

Sources: "Part-dependent Label Noise" (arXiv 2006.07836; its generator of instance-dependent labels),
and "Beyond Class-Conditional Assumption" (arXiv 2012.05458). Re-implemented. Differs: the number of
wrong labels is fixed; "hard" takes the classes of a linear classifier on principal components of the
pixels instead of a network's mean over its epochs. Shapes: N samples, D pixels, E features, K classes.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import check_choice
from unlearn.data.corruption.base import Corruption, draw_samples, index_to_mask
from unlearn.data.corruption.near_duplicates import embed_pixels
from unlearn.data.task import Truth

RULES = ("part", "hard")
CHUNK = 4096
"""Images that are converted to network input at a time."""


@dataclass(frozen=True, kw_only=True)
class InstanceDependent(Corruption):
    """Give samples a wrong label that depends on their pixels.

    Attributes:
        rule: "part": random samples; the label is drawn by the softmax of a random projection of the
            pixels, one projection per true class. "hard": the samples that a simple classifier finds
            nearest to another class, with that class as label.
    """

    rule: str

    regularity: ClassVar[str | None] = "low"

    def __post_init__(self) -> None:
        """Check the option."""
        check_choice("rule", self.rule, RULES)

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with ``count`` wrong labels.

        Raises:
            ValueError: If there are fewer samples.
        """
        if self.rule == "hard":
            chosen, wrong = find_hard_labels(clean, count)
        else:
            generator = torch.Generator().manual_seed(seed)
            chosen = draw_samples(torch.arange(len(clean)), count, generator)
            wrong = draw_projected_labels(clean, chosen, generator)
        label = clean.label.clone()
        label[chosen] = wrong
        truth = Truth(clean_label=clean.label, corrupted=index_to_mask(len(clean), chosen))
        return replace(clean, label=label), truth


def draw_projected_labels(clean: ImageSet, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Return wrong labels int64 (n,) of samples ``chosen`` (n,), by softmax(x W_y) without class y.

    x is the network input, flattened; W_y (D, K) is standard normal, one for each true class y.
    """
    k = clean.num_classes
    parts = [clean.view(clean.image[rows], rows).flatten(1) for rows in chosen.split(CHUNK)]
    pixel, own = torch.cat(parts).double(), clean.label[chosen]
    out = torch.empty_like(own)
    for c in range(k):
        weight = torch.randn(pixel.shape[1], k, generator=generator, dtype=torch.float64)
        rows = (own == c).nonzero().flatten()
        if not len(rows):
            continue
        logit = pixel[rows] @ weight
        logit[:, c] = -torch.inf
        out[rows] = torch.multinomial(logit.softmax(1), 1, generator=generator).flatten()
    return out


def find_hard_labels(clean: ImageSet, count: int) -> tuple[Tensor, Tensor]:
    """Return the samples whose best wrong class is most probable, sorted (n,), and that class (n,)."""
    probability = fit_linear_classifier(embed_pixels(clean.image), clean.label, clean.num_classes)
    probability[torch.arange(len(clean)), clean.label] = -1
    best = probability.max(1)
    if count > len(clean):
        raise ValueError(f"cannot corrupt {count} samples, there are {len(clean)}")
    chosen = best.values.argsort(descending=True, stable=True)[:count].sort().values
    return chosen, best.indices[chosen]


def fit_linear_classifier(feature: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Return class probabilities (N, K) of logistic regression on features (N, E), fitted to them."""
    from sklearn.linear_model import LogisticRegression

    scaled = (feature - feature.mean(0)) / feature.std(0).clamp_min(1e-12)
    model = LogisticRegression(max_iter=1000, C=0.1).fit(scaled.numpy(), label.numpy())
    out = torch.zeros(len(label), num_classes, dtype=torch.float64)
    out[:, torch.from_numpy(model.classes_)] = torch.from_numpy(model.predict_proba(scaled.numpy()))
    return out
