"""Data sets of image files that torchvision downloads, read as those of a table."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from unlearn.core.image_table import ImageTable as Listing
from unlearn.core.image_table import TableLine
from unlearn.data.datasets.base import Dataset
from unlearn.data.datasets.image_decoding import MAX_PIXELS
from unlearn.data.datasets.image_table import ImageTable
from unlearn.data.datasets.torchvision_sets import BROKEN, TorchvisionDataset


@dataclass(frozen=True, kw_only=True)
class TorchvisionFiles(TorchvisionDataset):
    """GTSRB, or Imagenette at 160 pixels.

    Attributes:
        unreadable: "fail" lists unreadable images and stops, "skip" ignores them.
        cache_dir: Folder of the cache of decoded images.
        max_pixels: Pixels of the largest image that is decoded; larger ones are unreadable.
    """

    names: ClassVar[tuple[str, ...]] = ("GTSRB", "Imagenette")
    absent: ClassVar[tuple[type[Exception], ...]] = (*BROKEN, FileNotFoundError)

    unreadable: str
    cache_dir: str
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Check the options that do not depend on the data."""
        super().__post_init__()
        self._make_table()

    def get_options(self) -> dict[str, Any]:
        """Return further arguments of the class in torchvision."""
        return {"size": "160px"} if self.name == "Imagenette" else {}

    def load(self) -> Dataset:
        """Return the data set; downloaded on first use, decoded once.

        Raises:
            ValueError: If the files are missing and cannot be downloaded, or are unreadable.
        """
        train, test = (self.load_split(train) for train in (True, False))
        count = 1 + max(label for _, label in train._samples)
        given = getattr(train, "classes", None)  # of Imagenette: tuples of synonyms
        names = tuple(words[0] for words in given) if given else tuple(map(str, range(count)))
        listed, held = (tuple(self._list_lines(part, names)) for part in (train, test))
        return self._make_table().load_table(Listing(names, listed, held))

    def _list_lines(self, part: Any, names: tuple[str, ...]) -> Iterator[TableLine]:
        for number, (path, label) in enumerate(part._samples):
            place = Path(path).relative_to(self.root).as_posix()
            yield TableLine(number, place, names[label], part._split)

    def _make_table(self) -> ImageTable:
        own = {f.name for f in fields(self)}
        shared = {f.name: getattr(self, f.name) for f in fields(ImageTable) if f.name in own}
        return ImageTable(**shared, path=self.root, test_fraction=0.5)
