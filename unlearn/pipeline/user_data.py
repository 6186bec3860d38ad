"""The data of a call in Python: forget, retain and test set in all allowed forms.

Shapes: N samples, K classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlearn.core.folder_layout import is_saved_dataset
from unlearn.core.job import Job
from unlearn.core.types import ImageSet
from unlearn.data.datasets.base import Dataset
from unlearn.data.datasets.in_memory import make_image_set
from unlearn.data.forget_sets.from_file import restore_listed
from unlearn.data.forget_sets.sample_list import ImageIndex, parse_list, read_names
from unlearn.data.task import Truth
from unlearn.models.adapted import use_logits
from unlearn.models.surgery import eval_mode
from unlearn.pipeline.user_arrays import read_indices, read_pairs, read_scale


def build_user_data(
    job: Job,
    model: nn.Module,
    forget: Any,
    retain: Any,
    test: Any,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    class_names: Sequence[str] | None,
) -> tuple[Dataset, Tensor, Truth]:
    """Return the data as one set, the rows of the forget set, and their true labels if known."""
    forget = read_indices(forget)
    if isinstance(retain, str | Path):
        node = job.config["dataset"] | {locate_data(retain)[1]: str(retain), "num_classes": None}
        dataset: Dataset = job.build(node).load()
        if class_names is not None:
            dataset = dataset.reorder_classes(class_names)
        return _select_listed(dataset, forget)
    image, label = read_pairs(retain, "retain")
    if image.dtype == torch.uint8:
        mean, std = (
            read_scale(value, name, image.shape[1])
            for value, name in ((mean, "mean"), (std, "std"))
        )
    if _names_samples(forget):
        bad = None
    else:
        bad = read_pairs(forget, "forget")
        _check_alike(bad[0], image)
        image, label = torch.cat([bad[0], image]), torch.cat([bad[1], label])
    k = _num_classes(model, image, mean, std)
    _check_labels(label[len(bad[1]) if bad else 0 :], k, "retain")
    if bad:
        _check_labels(bad[1], k, "forget")
    names = tuple(class_names or map(str, range(k)))
    if len(names) != k:
        raise ValueError(f"class_names must have {k} entries, one per output of the model")
    options: dict[str, Any] = {"num_classes": k, "mean": mean, "std": std}
    train = make_image_set(image, label, what="retain", **options)
    held = None
    if test is not None:
        pairs = read_pairs(test, "test")
        _check_labels(pairs[1], k, "test")
        held = make_image_set(*pairs, what="test", **options)
    dataset = Dataset(train, train.rows(torch.arange(0)) if held is None else held, names, None)  # type: ignore[arg-type]
    if bad is None:
        return _select_listed(dataset, forget)
    return dataset, torch.arange(len(bad[1])), _make_truth(train, None)


def complete_input(
    model: nn.Module,
    retain: Any,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    image_size: int | None,
) -> tuple[Sequence[float] | None, Sequence[float] | None, int | None]:
    """Return mean, deviation and size of images from files, from the model's card where not given.

    Raises:
        ValueError: If one of them is neither given nor known.
    """
    if not isinstance(retain, str | Path):
        return mean, std, image_size
    card = getattr(model, "card", None)
    known = card["input"] if isinstance(card, dict) else {}
    given = {"mean": mean, "std": std, "image_size": image_size}
    found = {key: known.get(key) if value is None else value for key, value in given.items()}
    absent = [key for key, value in found.items() if value is None]
    if absent:
        raise ValueError(
            "retain: images from files need mean, std and image_size as used in training; "
            f"{', '.join(absent)} not given"
        )
    return found["mean"], found["std"], found["image_size"]


def locate_data(retain: Any) -> tuple[str, str]:
    """Return the data-set option that reads ``retain``, and the key of its location."""
    if not isinstance(retain, str | Path) or not Path(retain).exists():
        return "imagefolder", "root"
    if Path(retain).is_file():
        return "csv", "path"
    return ("huggingface", "path") if is_saved_dataset(Path(retain)) else ("imagefolder", "root")


def _check_alike(bad: Tensor, image: Tensor) -> None:
    """Check that images of both sets have the same size and type.

    Raises:
        ValueError: If they do not.
    """
    if bad.shape[1:] != image.shape[1:] or bad.dtype != image.dtype:
        own, other = (
            f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape[1:])}" for x in (bad, image)
        )
        raise ValueError(f"forget and retain need images alike, got {own} and {other}")


def _check_labels(label: Tensor, num_classes: int, what: str) -> None:
    """Check that labels are classes of the model.

    Raises:
        ValueError: If one is not.
    """
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{what}: labels must be in 0..{num_classes - 1}, as the model has {num_classes} "
            f"outputs; got {low}..{high}"
        )


def _names_samples(forget: Any) -> bool:
    """Return whether ``forget`` names samples of the retain set."""
    if isinstance(forget, str | Path):
        return True
    plain = isinstance(forget, list | tuple) and all(isinstance(x, str | int) for x in forget)
    return plain or (isinstance(forget, Tensor) and forget.ndim == 1)


def _select_listed(dataset: Dataset, forget: Any) -> tuple[Dataset, Tensor, Truth]:
    """Return the data with the rows that ``forget`` names, and their true labels if known."""
    if _names_samples(forget) and not isinstance(forget, Tensor):
        words = read_names(Path(forget)) if isinstance(forget, str | Path) else map(str, forget)
        dataset = restore_listed(dataset, list(words))
    total = len(dataset.train)
    names = ImageIndex(dataset.files, total)
    if not _names_samples(forget):
        raise ValueError("forget must name images of the folder: a file, or a list of names or ids")
    if isinstance(forget, str | Path):
        found = parse_list(Path(forget), names, dataset.class_names)
    else:
        wanted = forget.tolist() if isinstance(forget, Tensor) else forget
        found = {names.find_row(str(name)): None for name in wanted}
        if len(found) != len(wanted):
            raise ValueError("forget must not name a sample twice")
    if not 0 < len(found) < total:
        raise ValueError(f"forget must name 1..{total - 1} of {total} samples, got {len(found)}")
    known = None
    if any(v is not None for v in found.values()):
        known = torch.full((total,), -1)
        for row, value in found.items():
            known[row] = -1 if value is None else value
    return dataset, torch.tensor(sorted(found)), _make_truth(dataset.train, known)


def _make_truth(train: ImageSet, known: Tensor | None) -> Truth:
    nothing = torch.zeros(len(train), dtype=torch.bool)
    return Truth(clean_label=train.label, corrupted=nothing, known_label=known)


def _num_classes(
    model: nn.Module, image: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
) -> int:
    few = image[:2]
    data = make_image_set(
        few, torch.zeros(len(few)).long(), num_classes=1, mean=mean, std=std, what="retain"
    )
    batch = next(data.batches())
    try:
        with eval_mode(model):
            image = batch.image.to(next(model.parameters()).device)
            use_logits(model, image)
            out = model(image)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"model cannot read images {tuple(batch.image.shape[1:])} (C, H, W): "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise ValueError("model must map images (B, C, H, W) to logits (B, K)")
    return out.shape[1]
