"""Layout of a folder of images: where training and test images lie, and what the classes are.

A folder whose subfolders look like splits is never taken for one whose subfolders are classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "val", "valid", "validation", "dev", "eval")
ANNOTATIONS = "val_annotations.txt"
"""File of Tiny-ImageNet that holds name and class of each validation image, in ``images``."""


@dataclass(frozen=True)
class FolderLayout:
    """Folders of a data set.

    Attributes:
        train: Folder with a folder per class.
        test: The same for testing, or one with ``ANNOTATIONS``; None: split from ``train``.
        unused: Names of further folders that look like splits.
    """

    train: Path
    test: Path | None
    unused: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one line: what is used for training and for testing."""
        if self.test is None:
            return f"training and test images from {self.train}"
        rest = f"; not used: {', '.join(self.unused)}" if self.unused else ""
        return f"training images from {self.train}, test images from {self.test}{rest}"


def find_layout(root: Path) -> FolderLayout:
    """Return the layout of a folder of images.

    Raises:
        ValueError: If there is no such folder, or it is not clear which folders are classes.
    """
    if not root.is_dir():
        raise ValueError(f"dataset.root: no folder {root}; it must hold one folder per class")
    if is_saved_dataset(root):
        raise ValueError(
            f"dataset.root: {root} was saved by the package datasets; write dataset=huggingface "
            f"dataset.path={root}"
        )
    names = _list_folders(root)
    train = [n for n in names if n.lower() in TRAIN_NAMES]
    found = {n.lower(): n for n in names if n.lower() in TEST_NAMES}
    tests = [found[n] for n in TEST_NAMES if n in found]
    if not train and not tests:
        return FolderLayout(root, None)
    if len(train) == 1 and tests:
        usable = [n for n in tests if _holds_classes(root / n)]
        classes = [n for n in names if n not in (*train, *tests)]
        if usable and not classes:
            unused = tuple(n for n in tests if n != usable[0])
            return FolderLayout(root / train[0], root / usable[0], unused)
    raise ValueError(_explain_splits(root, names, train, tests))


def is_saved_dataset(folder: Path) -> bool:
    """Return whether a folder was written by ``save_to_disk`` of the package datasets."""
    single = (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    return single or (folder / "dataset_dict.json").is_file()


def list_classes(top: Path) -> list[str]:
    """Return the sorted names of the class folders below ``top``.

    Raises:
        ValueError: If there are fewer than two.
    """
    names = _list_folders(top)
    if len(names) < 2:
        raise ValueError(f"dataset.root: {top} must hold two or more class folders, got {names}")
    return names


def choose_classes(names: Sequence[str], wanted: Sequence[str] | str | None) -> list[str]:
    """Return those of the classes ``names`` that are wanted, in their order.

    Args:
        names: All classes.
        wanted: Names, or a file with one a line; None: all.

    Raises:
        ValueError: If the file cannot be read, or the names are not two or more of the classes.
    """
    if wanted is None:
        return list(names)
    listed = [str(name) for name in wanted] if not isinstance(wanted, str) else _read_list(wanted)
    unknown = sorted(set(listed) - set(names))
    if unknown:
        some = ", ".join(unknown[:3]) + ", ..." * (len(unknown) > 3)
        raise ValueError(f"dataset.classes: {some} ({len(unknown)}) not among {len(names)} classes")
    if len(set(listed)) < max(2, len(listed)):
        raise ValueError(
            f"dataset.classes must be two or more different classes, got {len(listed)} names, "
            f"{len(set(listed))} of them different"
        )
    return [name for name in names if name in set(listed)]


def _read_list(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"dataset.classes must be a list of classes, or a file with one a line; cannot read {path}"
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def read_annotations(top: Path) -> dict[str, str] | None:
    """Return the class of each image of Tiny-ImageNet's validation folder; None of another folder.

    Returns:
        Class by path below ``top``, such as ``images/val_0.JPEG``.

    Raises:
        ValueError: If a line of the file does not hold a name and a class.
    """
    path = top / ANNOTATIONS
    if not path.is_file():
        return None
    classes = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        parts = line.split("\t")
        if len(parts) < 2 or not parts[0] or not parts[1]:
            raise ValueError(f"{path}, line {number}: must hold a name, a tab and a class")
        classes[f"images/{parts[0]}"] = parts[1]
    return classes


def _list_folders(top: Path) -> list[str]:
    return sorted(p.name for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))


def _holds_classes(top: Path) -> bool:
    return (top / ANNOTATIONS).is_file() or len(_list_folders(top)) > 1


def _explain_splits(root: Path, names: list[str], train: list[str], tests: list[str]) -> str:
    """Return why folders that look like splits cannot be used, and what to write."""
    alike = [*train, *tests]
    others = [n for n in names if n not in alike]
    start = f"dataset.root: {root} holds {', '.join(alike)}"
    if others:
        return (
            f"{start}, which look like splits, beside {', '.join(others[:3])}: put the classes into "
            "train/<class> and test/<class>, or rename a class of such a name"
        )
    if len(train) > 1:
        return f"{start}: keep one of {', '.join(train)}"
    if not train:
        return (
            f"{start} without train/<class>; to split a test set off, set dataset.root="
            f"{root / tests[0]}"
        )
    if not tests:
        return (
            f"{start} alone, but no test/<class> or val/<class>; to split a test set off, set "
            f"dataset.root={root / train[0]}"
        )
    return (
        f"{start}, but {', '.join(tests)} {'holds' if len(tests) == 1 else 'hold'} no class folders; "
        f"to split a test set off, set dataset.root={root / train[0]}"
    )
