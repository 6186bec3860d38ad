"""Class-dependent label noise: samples of some classes get the label of one similar class each.

Source: "Making Deep Neural Networks Robust to Label Noise" (arXiv 1609.03683). Re-implemented.
Differs: the number of wrong labels is fixed, the same for each class that loses samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.attack import check_class
from unlearn.data.corruption.base import Corruption, draw_samples, index_to_mask
from unlearn.data.task import Truth


@dataclass(frozen=True, kw_only=True)
class Asymmetric(Corruption):
    """Label samples of each source class as its fixed other class.

    Attributes:
        pairs: Source class and wrong label of each pair; None: each class and the next one.
    """

    pairs: Sequence[Sequence[int]] | None

    regularity: ClassVar[str | None] = "low"

    def __post_init__(self) -> None:
        """Check that every pair has two different classes and no source is named twice."""
        if self.pairs is None:
            return
        sources = [pair[0] for pair in self.pairs if len(pair) == 2 and pair[0] != pair[1]]
        if not sources or len(sources) < len(self.pairs) or len(set(sources)) < len(sources):
            raise ValueError(
                "corruption.pairs must be pairs of two different classes, each first class once, "
                f"got {[list(pair) for pair in self.pairs]}"
            )

    def __call__(self, clean: ImageSet, *, count: int, seed: int) -> tuple[ImageSet, Truth]:
        """Return the set with ``count`` wrong labels, spread evenly over the pairs.

        Raises:
            ValueError: If a class does not exist or has too few samples.
        """
        k = clean.num_classes
        pairs = self.pairs or [(c, (c + 1) % k) for c in range(k)]
        for named in pairs:
            for value in named:
                check_class("pairs", value, k)
        generator = torch.Generator().manual_seed(seed)
        label, chosen = clean.label.clone(), []
        for number, (source, wrong) in enumerate(pairs):
            share = count // len(pairs) + (number < count % len(pairs))
            pool = (clean.label == source).nonzero().flatten()
            if len(pool) < share:
                raise ValueError(
                    f"corrupted={count} needs {share} samples of class {source}, there are {len(pool)}"
                )
            part = draw_samples(pool, share, generator)
            label[part] = wrong
            chosen.append(part)
        truth = Truth(
            clean_label=clean.label, corrupted=index_to_mask(len(clean), torch.cat(chosen))
        )
        return replace(clean, label=label), truth
