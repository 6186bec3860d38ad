"""Interclass confusion: two classes exchange labels for part of their samples; medium regularity.

Source: "Corrective Machine Unlearning" (arXiv 2402.14015), REM (arXiv 2505.17730). Re-implemented.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.base import Corruption, draw_samples, index_to_mask
from unlearn.data.task import Truth


@dataclass(frozen=True, kw_only=True)
class InterclassConfusion(Corruption):
    """Swap the labels of an equal number of samples of two classes.

    Attributes:
        classes: The two classes.
        pick: "first" takes the first samples in data set order (the references' rule, the same for
            every seed), "random" draws them.
    """

    classes: tuple[int, int]
    pick: str

    regularity: ClassVar[str | None] = "medium"

    def __post_init__(self) -> None:
        """Check both options."""
        if len(self.classes) != 2 or len(set(self.classes)) != 2:
            raise ValueError(
                f"corruption.classes must be two different classes, got {list(self.classes)}"
            )
        if self.pick not in ("first", "random"):
            raise ValueError(f"corruption.pick must be first or random, got {self.pick}")

    multiple: ClassVar[int] = 2

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with count/2 samples of either class labelled as the other.

        Raises:
            ValueError: If the count is odd or a class has fewer than count/2 samples.
        """
        if count % 2:
            raise ValueError(
                f"corrupted must give an even number of samples for two classes, got {count}"
            )
        generator = torch.Generator().manual_seed(seed)
        label = clean.label.clone()
        chosen = []
        for own, other in (self.classes, self.classes[::-1]):
            pool = (clean.label == own).nonzero().flatten()
            if len(pool) < count // 2:
                raise ValueError(
                    f"corrupted={count} needs {count // 2} samples of class {own}, "
                    f"there are {len(pool)}"
                )
            part = pool[: count // 2]
            if self.pick == "random":
                part = draw_samples(pool, count // 2, generator)
            label[part] = other
            chosen.append(part)
        truth = Truth(
            clean_label=clean.label,
            corrupted=index_to_mask(len(clean), torch.cat(chosen)),
            confused_classes=(self.classes[0], self.classes[1]),
        )
        return replace(clean, label=label), truth
