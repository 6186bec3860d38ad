"""Base classes of backdoor attacks: which samples carry the trigger, their labels, the truth.

Dirty-label: triggered images are labelled as the target class. Clean-label: images of the target
class get the trigger and keep their right label. Shapes: N samples.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unlearn.core.types import ImageSet
from unlearn.data.corruption.base import Corruption, draw_samples, index_to_mask
from unlearn.data.corruption.triggers import ChangedView, DeviceTensor, PixelChange, PixelTrigger
from unlearn.data.task import Truth

CLEAN_LABEL_SHARE = 0.9
"""Largest share of the target class that a clean-label attack may take."""

Layer = tuple[PixelChange, Tensor]
"""A change and the mask of its samples, bool (N,)."""


@dataclass(frozen=True, kw_only=True)
class Attack(Corruption):
    """Base class of attacks whose trigger changes pixels.

    Attributes:
        target_class: Class that triggered images are classified as.
    """

    target_class: int

    regularity: ClassVar[str | None] = "high"

    @abstractmethod
    def make_trigger(self, clean: ImageSet, generator: torch.Generator) -> PixelChange:
        """Return the trigger for images of this size."""

    def check_target(self, clean: ImageSet) -> None:
        """Check that the target class exists.

        Raises:
            ValueError: If it does not.
        """
        check_class("target_class", self.target_class, clean.num_classes)


@dataclass(frozen=True, kw_only=True)
class DirtyLabelAttack(Attack):
    """Put the trigger on randomly chosen samples and label them as their target.

    Attributes:
        mapping: "all_to_one": the target is ``target_class``; "all_to_all": the next class, and
            ``target_class`` and ``exclude_target_class`` are unused.
        exclude_target_class: Take only samples of other classes.
    """

    mapping: str
    exclude_target_class: bool

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        check_choice("mapping", self.mapping, ("all_to_one", "all_to_all"))

    def make_training_change(
        self, clean: ImageSet, chosen: Tensor, trigger: PixelChange
    ) -> PixelChange:
        """Return the change of the training samples ``chosen``; by default the trigger."""
        return trigger

    def add_changes(
        self, clean: ImageSet, chosen: Tensor, trigger: PixelChange, generator: torch.Generator
    ) -> Sequence[Layer]:
        """Return changes of samples that are not corrupted; none by default."""
        return ()

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with ``count`` triggered samples.

        Raises:
            ValueError: If the target class does not exist or too few samples are eligible.
        """
        self.check_target(clean)
        one = self.mapping == "all_to_one"
        pool = torch.arange(len(clean))
        if one and self.exclude_target_class:
            pool = pool[clean.label != self.target_class]
        generator = torch.Generator().manual_seed(seed)
        chosen = draw_samples(pool, count, generator)
        change = self.make_trigger(clean, generator)
        on = index_to_mask(len(clean), chosen)
        truth = Truth(
            clean_label=clean.label,
            corrupted=on,
            trigger=PixelTrigger(change, clean.view),
            target_class=self.target_class if one else None,
            all_to_all=not one,
            clean_view=clean.view,
        )
        label = clean.label.clone()
        label[chosen] = truth.find_targets(clean.label, clean.num_classes)[chosen]
        own = self.make_training_change(clean, chosen, change)
        layers = [(own, on), *self.add_changes(clean, chosen, change, generator)]
        return replace(clean, label=label, view=stack_changes(clean, layers)), truth


@dataclass(frozen=True, kw_only=True)
class CleanLabelAttack(Attack):
    """Put the trigger on samples of the target class, whose labels stay right."""

    def make_training_change(
        self, clean: ImageSet, chosen: Tensor, trigger: PixelChange, generator: torch.Generator
    ) -> PixelChange:
        """Return the change of the training samples ``chosen``; by default the trigger alone."""
        return trigger

    def add_changes(
        self, clean: ImageSet, kept: Tensor, trigger: PixelChange, generator: torch.Generator
    ) -> Sequence[Layer]:
        """Return changes of samples that are neither corrupted nor ``kept`` (n,); none by default."""
        return ()

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with ``count`` triggered samples of the target class.

        Raises:
            ValueError: If the target class does not exist or is too small.
        """
        self.check_target(clean)
        pool = (clean.label == self.target_class).nonzero().flatten()
        most = int(CLEAN_LABEL_SHARE * len(pool))
        if count > most:
            raise ValueError(
                f"corrupted must give at most {most} samples, {CLEAN_LABEL_SHARE:.0%} of the "
                f"{len(pool)} of class {self.target_class}, got {count}"
            )
        generator = torch.Generator().manual_seed(seed)
        chosen = draw_samples(pool, count, generator)
        trigger = self.make_trigger(clean, generator)
        change = self.make_training_change(clean, chosen, trigger, generator)
        on = index_to_mask(len(clean), chosen)
        others = (clean.label != self.target_class).nonzero().flatten()
        held = draw_samples(others, min(count, len(others)), generator)
        truth = Truth(
            clean_label=clean.label,
            corrupted=on,
            trigger=PixelTrigger(trigger, clean.view),
            target_class=self.target_class,
            clean_view=clean.view,
            healed_rows=held,
            healed_view=stack_changes(clean, [(trigger, index_to_mask(len(clean), held))]),
        )
        layers = [(change, on), *self.add_changes(clean, held, trigger, generator)]
        return replace(clean, view=stack_changes(clean, layers)), truth


def stack_changes(clean: ImageSet, layers: Sequence[Layer]) -> ChangedView:
    """Return the view of a set with several changes, whose samples should not overlap."""
    view = clean.view
    for change, on in layers:
        view = ChangedView(view, change, DeviceTensor(on))
    assert isinstance(view, ChangedView)
    return view


def check_class(key: str, value: int, num_classes: int) -> None:
    """Check that an option names a class.

    Raises:
        ValueError: If it does not.
    """
    if not 0 <= value < num_classes:
        raise ValueError(f"corruption.{key} must be in 0..{num_classes - 1}, got {value}")


def check_choice(key: str, value: str, allowed: Sequence[str]) -> None:
    """Check that an option has one of the allowed values.

    Raises:
        ValueError: If it does not.
    """
    if value not in allowed:
        raise ValueError(f"corruption.{key} must be {' or '.join(allowed)}, got {value}")


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Check that an option is a number in [low, high].

    Raises:
        ValueError: If it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ValueError(f"corruption.{key} must be in [{low:g}, {high:g}], got {value}")
