"""Types that all layers share; imports torch alone.

Shapes: N samples, B batch, K classes, C H W image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unlearn.core.stored_images import concatenate, read_batches, take_rows


class InputView(Protocol):
    """Conversion of stored images to network input: normalization, and triggers if received."""

    def __call__(self, image: Tensor, index: Tensor) -> Tensor:
        """Return float (B, C, H, W) for uint8 images (B, C, H, W) of the rows ``index`` (B,)."""
        ...


@dataclass(frozen=True)
class Batch:
    """Network input.

    Attributes:
        image: Float (B, C, H, W).
        label: int64 (B,).
        index: int64 (B,).
        weight: Weight of a mean over this part of a batch in the mean over all parts, those of
            several devices or micro-batches; 1 for a whole batch. A method multiplies by it if it
            adds means over several sets.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    weight: float = 1.0

    def split(self, parts: int, total: int | None = None) -> list["Batch"]:
        """Return micro-batches of almost equal sizes.

        Args:
            parts: Number of micro-batches.
            total: What their weights add up to, times the batch's own weight; None: ``parts``.
        """
        share = (total or parts) * self.weight / len(self.label)
        pieces = (t.tensor_split(parts) for t in (self.image, self.label, self.index))
        return [Batch(*piece, weight=share * len(piece[1])) for piece in zip(*pieces, strict=True)]


pytree.register_pytree_node(
    Batch,
    lambda b: ([b.image, b.label, b.index], b.weight),
    lambda leaves, weight: Batch(*leaves, weight=weight),
    serialized_type_name="unlearn.core.types.Batch",
)


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, on one device.

    Attributes:
        image: uint8 (N, C, H, W): a tensor, or ``StoredImages``, which are indexed alike.
        label: int64 (N,), training label, possibly wrong.
        index: int64 (N,), ascending row numbers in the full training set; never renumbered.
        num_classes: K.
        view: Turns stored images into network input.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    num_classes: int
    view: InputView

    def __post_init__(self) -> None:
        """Check shapes and label range."""
        n = len(self.image)
        if self.image.dtype != torch.uint8 or self.image.ndim != 4:
            raise ValueError(
                f"image must be uint8 (N, C, H, W), got {self.image.dtype} {tuple(self.image.shape)}"
            )
        if self.label.shape != (n,) or self.index.shape != (n,):
            raise ValueError(
                f"{n} images need {n} labels and indices, got {tuple(self.label.shape)} "
                f"and {tuple(self.index.shape)}"
            )
        if n and not 0 <= int(self.label.min()) <= int(self.label.max()) < self.num_classes:
            raise ValueError(f"labels must be in 0..{self.num_classes - 1}")

    def __len__(self) -> int:
        """Return N."""
        return len(self.label)

    def rows(self, keep: Tensor) -> "ImageSet":
        """Return the rows at positions ``keep``, int64 (n,) or bool (N,)."""
        image = take_rows(self.image, keep)
        return replace(self, image=image, label=self.label[keep], index=self.index[keep])

    def to(self, device: torch.device | str) -> "ImageSet":
        """Return the set with its tensors on ``device``."""
        return replace(
            self,
            image=self.image.to(device),
            label=self.label.to(device),
            index=self.index.to(device),
        )

    def batches(
        self, batch_size: int = 1024, start: int = 0, device: torch.device | None = None
    ) -> Iterator[Batch]:
        """Yield the samples from position ``start`` on in order, without augmentation.

        Args:
            batch_size: B; the last batch may be smaller, or larger by one.
            start: Position of the first sample.
            device: Device of the batches; None: that of the set.
        """
        parts, size = list[slice](), len(self)
        while start < size:
            # A single last sample joins the previous batch: batch norm needs more than one value.
            stop = size if size - start <= batch_size + 1 else start + batch_size
            parts.append(slice(start, stop))
            start = stop
        yield from self.select_batches(parts, device)

    def select_batches(
        self, parts: Sequence[Tensor | slice], device: torch.device | None = None
    ) -> Iterator[Batch]:
        """Yield a batch of the samples at each list of positions, without augmentation."""
        device = self.label.device if device is None else device
        images = read_batches(self.image, parts, device)
        for part in parts:  # without a variable for the batch, which would keep it
            yield self._make_batch(next(images), part, device)

    def _make_batch(self, image: Tensor, part: Tensor | slice, device: torch.device) -> Batch:
        index = self.index[part].to(device)
        return Batch(self.view(image, index), self.label[part].to(device), index)


def join_sets(first: ImageSet, second: ImageSet) -> ImageSet:
    """Return both sets as one, ordered by index."""
    order = torch.argsort(torch.cat([first.index, second.index]))
    return replace(
        first,
        image=take_rows(concatenate([first.image, second.image]), order),
        label=torch.cat([first.label, second.label])[order],
        index=torch.cat([first.index, second.index])[order],
    )


@dataclass(frozen=True)
class Request:
    """The information a method gets besides the model.

    Attributes:
        forget: The discovered samples, as received.
        retain: All other samples, as received, including undiscovered corruption. ``batches``
            yield received images; the view adds what a corruption puts on an image (a trigger).
        records: Per-sample values recorded during pre-training, (N,) each, by index.
        wrong_labels: Whether the forget set was listed because its labels are wrong (a corruption);
            False for a request to forget samples with right labels.
    """

    forget: ImageSet
    retain: ImageSet
    records: Mapping[str, Tensor] = field(default_factory=dict)
    wrong_labels: bool = True

    def __post_init__(self) -> None:
        """Check that both sets are non-empty and disjoint."""
        if not len(self.forget) or not len(self.retain):
            raise ValueError(
                f"forget and retain set must not be empty, got {len(self.forget)} "
                f"and {len(self.retain)} samples"
            )
        if torch.isin(self.forget.index, self.retain.index).any():
            raise ValueError("forget and retain set share samples")

    def __getattr__(self, name: str) -> Any:
        """Raise an error that lists the available attributes."""
        raise AttributeError(
            f"a method has access only to the forget set, the retain set and the records; "
            f"it asked for '{name}'"
            + (" without needs_trusted = True" if name == "trusted" else "")
        )

    def get_all_indices(self) -> Tensor:
        """Return the index of every sample, (N,), unordered, without copying images."""
        return torch.cat([self.forget.index, self.retain.index])

    def get_table_size(self) -> int:
        """Return the size of a table of values by index: one more than the highest index.

        Not the number of samples: those of earlier requests are gone, the others keep their indices.
        """
        return int(self.get_all_indices().max()) + 1

    def get_all_samples(self) -> ImageSet:
        """Return forget and retain set as one set, ordered by index: the data as received."""
        return join_sets(self.forget, self.retain)

    def without_trusted(self) -> "Request":
        """Return the request as a method gets it that does not need a trusted set."""
        return self


@dataclass(frozen=True)
class TrustedRequest(Request):
    """The request of a method that needs a trusted set.

    Attributes:
        trusted: Images whose labels are known to be right, without triggers. Some may also be in the
            retain set; none is in the forget set.
    """

    trusted: ImageSet = field(kw_only=True)

    def __post_init__(self) -> None:
        """Check that the trusted set is not empty and shares no sample with the forget set."""
        super().__post_init__()
        if not len(self.trusted):
            raise ValueError("the trusted set must not be empty")
        if torch.isin(self.trusted.index, self.forget.index).any():
            raise ValueError("forget set and trusted set share samples")

    def without_trusted(self) -> Request:
        """Return the request without the trusted set."""
        return Request(self.forget, self.retain, self.records)

    def split_trusted(self) -> tuple[ImageSet, ImageSet, bool]:
        """Return the trusted images to train on, those to validate on, and whether they differ."""
        held = select_validation_rows(self.trusted.label)
        if held is None:
            return self.trusted, self.trusted, False
        return self.trusted.rows(~held), self.trusted.rows(held), True


VALIDATION_SHARE = 0.2
"""Share of each class of the trusted set that is used for validation; at least two images."""


def select_validation_rows(label: Tensor) -> Tensor | None:
    """Return the rows to validate on, bool (N,), evenly spaced within each class.

    None if a class has too few images: at least two to validate on, and as many to train on.
    """
    held = torch.zeros(len(label), dtype=torch.bool, device=label.device)
    for c in label.unique():
        own = (label == c).nonzero().flatten()
        count = max(2, round(VALIDATION_SHARE * len(own)))
        if len(own) < 2 * count:
            return None
        held[own[torch.arange(count, device=own.device) * len(own) // count]] = True
    return held


class Fit(Protocol):
    """Trains a prepared model with a method's loss; passed to the method."""

    def __call__(self, method: Any, model: nn.Module, request: Request) -> None:
        """Run the method's epochs on ``model`` in place."""
        ...


class Unlearner(Protocol):
    """Interface of methods, meta-algorithms and sequences."""

    def unlearn(self, model: nn.Module, request: Request, fit: Fit) -> nn.Module:
        """Return the unlearned model; ``model`` may be modified in place."""
        ...


Forward = Callable[..., Tensor]
"""``forward(image, index=None) -> logits (B, K)``; ``index`` selects per-sample masks where a model has them."""
