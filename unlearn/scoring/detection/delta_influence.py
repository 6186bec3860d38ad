"""Delta-Influence: from one misclassified test image to the training samples that caused it.

Source: "Delta-Influence: Unlearning Poisons via Influence Functions" (arXiv 2411.13731).
Re-implemented. Differs: influence of the last layer alone, in closed form, with the expected Fisher
matrix; transformations act on pixels. Shapes: N samples, E features and a bias, K classes, C H W image.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from unlearn.models.inference import compute_embedding, compute_logits
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.base import Detector

DAMPING = 0.1
"""Damping of the curvature, relative to its mean eigenvalue (arXiv 2411.13731)."""

Draw = Callable[[float, float], float]


class DeltaInfluence(Detector):
    """Flag samples whose influence falls when the image is transformed and labelled anew."""

    needs_query = True

    def __init__(
        self,
        *,
        image: str | int | None,
        num_queries: int,
        tolerance: int,
        same_label: bool,
        seed: int,
    ) -> None:
        """Store the options.

        Args:
            image: The misclassified test image: a file or a row of the test set; None: one is drawn
                with the ground truth, for benchmarks.
            num_queries: Transformed copies, B.
            tolerance: Flag samples whose influence falls for all but this many copies.
            same_label: Flag only samples with the label that the image was given.
            seed: Seed of transformations, labels and the drawn image.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__()
        if not 0 <= tolerance < num_queries:
            raise ValueError(
                f"forget_set.tolerance must be in 0..{num_queries - 1}, below "
                f"forget_set.num_queries, got {tolerance}"
            )
        self.image = image
        self.num_queries = num_queries
        self.tolerance = tolerance
        self.same_label = same_label
        self.seed = seed

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the flagged samples, int64 (n,)."""
        assert subject.query is not None
        query, k = subject.query, subject.data.num_classes
        generator = torch.Generator().manual_seed(self.seed)
        copies = [transform_image(query.image, generator) for _ in range(self.num_queries)]
        step = torch.randint(1, k, (self.num_queries,), generator=generator)
        label = (query.label.expand(self.num_queries) + step) % k
        index = query.index.expand(self.num_queries)
        asked = replace(query, image=torch.cat(copies), label=label, index=index)
        model = subject.model()
        influence = LastLayerInfluence(
            compute_logits(model, subject.data).cpu(),
            compute_embedding(model, subject.data).cpu(),
            subject.data.label.cpu(),
        )
        own, other = (
            influence.score_samples(
                compute_logits(model, part).cpu(), compute_embedding(model, part).cpu(), part.label
            )
            for part in (query, asked)
        )
        fallen = (other - own < 0).sum(0) >= self.num_queries - self.tolerance
        given = subject.data.label.cpu() == query.label
        self.notes["same_label"] = int((fallen & given).sum())
        return (fallen & given if self.same_label else fallen).nonzero().flatten()


class LastLayerInfluence:
    """Influence of training samples on the margin of other images, through the last layer.

    The gradient of a sample's loss is (p - e_y) x [h, 1]; the curvature is a Kronecker product of the
    second moments of features, A, and of the expected Fisher matrix of the outputs, G.
    """

    def __init__(self, logits: Tensor, features: Tensor, label: Tensor) -> None:
        """Prepare the curvature.

        Args:
            logits: Of the training set, (N, K).
            features: Of the last layer's input, (N, E).
            label: Given labels, int64 (N,).
        """
        p = logits.double().softmax(1)
        h = _append_one(features)
        residual = p.clone()
        residual[torch.arange(len(p)), label] -= 1
        a, self.feature_basis = torch.linalg.eigh(h.T @ h / len(h))
        fisher = torch.diag(p.mean(0)) - p.T @ p / len(p)
        g, self.output_basis = torch.linalg.eigh(fisher)
        curvature = a.clamp_min(0)[:, None] * g.clamp_min(0)[None]
        self.inverse = 1 / (curvature + DAMPING * curvature.mean())
        self.h = h @ self.feature_basis
        self.residual = residual @ self.output_basis

    def score_samples(self, logits: Tensor, features: Tensor, label: Tensor) -> Tensor:
        """Return how much each training sample helped images to get their label, (B, N).

        Args:
            logits: Of the images, (B, K).
            features: (B, E).
            label: int64 (B,).
        """
        rows = torch.arange(len(label))
        others = logits.double().clone()
        others[rows, label] = -torch.inf
        margin = others.softmax(1)  # gradient of logsumexp over the other classes, minus z_y
        margin[rows, label] = -1
        h, q = _append_one(features) @ self.feature_basis, margin @ self.output_basis
        out = []
        for own, gradient in zip(h, q, strict=True):  # one image at a time: bounded memory
            weight = own[:, None] * gradient[None] * self.inverse
            out.append(((self.h @ weight) * self.residual).sum(1))
        return torch.stack(out)


def _append_one(features: Tensor) -> Tensor:
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.double)], 1)


def transform_image(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return a randomly transformed copy of uint8 images (1, C, H, W).

    One of: horizontal flip, colour jitter, rotation with scale and shear, elastic displacement, blur,
    inversion, and for colour images an exchange of red and green.
    """

    def draw(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=generator).item()

    pixel = image.float() / 255
    kinds = [_flip, _jitter, _move, _bend, _blur, _invert]
    kinds += [_swap] if image.shape[1] == 3 else []
    changed = kinds[int(torch.randint(len(kinds), (1,), generator=generator))](pixel, draw)
    return (changed.clamp(0, 1) * 255).round().to(torch.uint8)


def _flip(pixel: Tensor, draw: Draw) -> Tensor:
    return T.horizontal_flip(pixel)


def _jitter(pixel: Tensor, draw: Draw) -> Tensor:
    pixel = T.adjust_contrast(T.adjust_brightness(pixel, draw(0.9, 1.1)), draw(0.9, 1.1))
    if pixel.shape[1] == 3:
        pixel = T.adjust_hue(T.adjust_saturation(pixel, draw(0.6, 1.4)), draw(-0.1, 0.1))
    return pixel


def _move(pixel: Tensor, draw: Draw) -> Tensor:
    angle, scale, shear = draw(-180, 180), draw(1, 2), draw(-10, 10)
    return T.affine(pixel, angle=angle, translate=[0, 0], scale=scale, shear=[shear, 0.0])


def _bend(pixel: Tensor, draw: Draw) -> Tensor:
    """Displace pixels by a smooth field of a few pixels."""
    h, w = pixel.shape[-2:]
    coarse = torch.tensor([[draw(-1, 1) for _ in range(16)] for _ in range(2)]).view(1, 2, 4, 4)
    field = T.resize(coarse, [h, w]).permute(0, 2, 3, 1)
    return T.elastic(pixel, field * 0.3)


def _blur(pixel: Tensor, draw: Draw) -> Tensor:
    size = [
        min(want, side - 1 + side % 2) for want, side in zip((9, 5), pixel.shape[-2:], strict=True)
    ]
    return T.gaussian_blur(pixel, size[::-1], [draw(8, 10)])


def _invert(pixel: Tensor, draw: Draw) -> Tensor:
    return 1 - pixel


def _swap(pixel: Tensor, draw: Draw) -> Tensor:
    return pixel[:, [1, 0, 2]]
