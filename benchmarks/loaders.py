"""Images per second of reading from stores, against the limits, in turns in one process.

The limit of pixels is plain indexing of a memory map, that of encoded images is decoding alone, both in
batches of the same rows and as many threads. Each round measures all, so that other work on the machine
meets all of them alike: the median of the rounds' ratios counts. Commands use huge pages; here they need
``THP_MEM_ALLOC_ENABLE=1`` before the start, since torch reads it once.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.bare_loop import BATCH, SIZE
from benchmarks.measuring import Table
from unlearn.core.stored_images import StoredImages, read_batches
from unlearn.core.types import ImageSet

INDEXING, DECODING = "plain indexing of the map", "decoding alone"
LIMITS = {"pixels": INDEXING, "encoded": DECODING, "encoded, read ahead": DECODING}
CPU = torch.device("cpu")


def load_training_set(root: Path, home: Path, store: str) -> ImageSet:
    """Return the training images of a folder, kept in a store."""
    from unlearn.data.datasets.augmentation import Augment
    from unlearn.data.datasets.image_folder import ImageFolder

    folder = ImageFolder(
        root=str(root), image_size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, num_classes=None,
        num_train=None, num_test=None, test_fraction=0.2, unreadable="fail",
        cache_dir=str(home / "data_cache"), augment=Augment(crop_padding=0, flip_rate=0.0, cutout=0),
        store=store,
    )  # fmt: skip
    return folder.load().train


def make_sides(root: Path, home: Path, threads: int) -> tuple[dict[str, Callable[[], object]], int]:
    """Return a function per side that reads all images once, and their number."""
    from unlearn.data.datasets.encoded_store import find_fast_decoder
    from unlearn.training.loader import ResidentLoader

    sets = {store: load_training_set(root, home, store) for store in ("pixels", "encoded")}
    images, files = sets["pixels"].image, sets["encoded"].image
    assert isinstance(images, StoredImages) and isinstance(files, StoredImages)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts = order.split(BATCH)
    decode, paths = find_fast_decoder(), files.source.paths  # type: ignore[attr-defined]
    assert decode is not None
    contents = [
        torch.frombuffer(bytearray(Path(paths[row]).read_bytes()), dtype=torch.uint8)
        for row in files.rows[order].tolist()
    ]
    mapped = images.source._get_map().view(-1, 3, SIZE, SIZE)  # type: ignore[attr-defined]
    rows = [images.rows[part] for part in parts]

    def decode_all() -> None:
        with ThreadPoolExecutor(threads) as pool:
            chunks = [contents[i :: 4 * threads] for i in range(4 * threads)]
            for _ in pool.map(lambda chunk: [decode(one).shape for one in chunk], chunks):
                pass

    def read_ahead(which: Tensor) -> list[torch.Size]:
        return [batch.shape for batch in read_batches(which, parts, CPU)]

    def load(data: ImageSet) -> list[torch.Size]:
        loader = ResidentLoader(data, batch_size=BATCH, augment=None, seed=0)
        return [batch.image.shape for batch in loader]

    sides: dict[str, Callable[[], object]] = {
        INDEXING: lambda: [mapped[part].shape for part in rows],
        "pixels": lambda: read_ahead(sets["pixels"].image),
        "pixels, network input": lambda: load(sets["pixels"]),
        DECODING: decode_all,
        "encoded": lambda: [files.read(part).shape for part in parts],
        "encoded, read ahead": lambda: read_ahead(sets["encoded"].image),
        "encoded, network input": lambda: load(sets["encoded"]),
    }
    return sides, len(images)


def compare_loaders(root: Path, home: Path, threads: int, rounds: int) -> Table:
    """Return images per second, and ratios to the limit: median, and from the least to the largest."""
    torch.set_num_threads(threads)
    sides, count = make_sides(root, home, threads)
    taken = {name: list[tuple[float, float]]() for name in sides}
    for number in range(rounds + 1):  # the first warms up
        for name in reversed(sides) if number % 2 else sides:
            started, spent = time.perf_counter(), time.process_time()
            sides[name]()
            now = (time.perf_counter() - started, time.process_time() - spent)
            if number:
                taken[name].append(now)
    rows = []
    for name, values in taken.items():
        wall, cpu = (statistics.median(one) for one in zip(*values, strict=True))
        ratios = ["", ""]
        if name in LIMITS:
            pairs = list(zip(taken[LIMITS[name]], values, strict=True))
            ratios = [format_ratios([limit[i] / own[i] for limit, own in pairs]) for i in (0, 1)]
        rows.append([name, f"{count / wall:,.0f}", f"{count / cpu:,.0f}", *ratios])
    return Table(
        "loader",
        ("what", "images/s", "images per CPU second", "of the limit", "of the limit, by CPU time"),
        rows,
        f"{count} images, {threads} threads, {rounds} rounds; medians (least to largest)",
    )


def format_ratios(ratios: list[float]) -> str:
    """Return the median, the least and the largest."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
