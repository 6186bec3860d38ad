"""Loaders: batches gathered from tensors or from stored images, augmented on the device.

Order and augmentation of an epoch depend only on (seed, epoch), so that a resumed run continues
exactly as an uninterrupted one. Shapes: N samples, B batch, C H W image.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from unlearn.core.stored_images import read_batches
from unlearn.core.types import Batch, ImageSet, Request, TrustedRequest
from unlearn.training.distributed import SINGLE_PROCESS, Rank

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def epoch_generator(seed: int, epoch: int, device: torch.device | str) -> torch.Generator:
    """Return the generator of one epoch."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + epoch)


def num_batches(samples: int, batch_size: int, ranks: int = 1) -> int:
    """Return the number of batches of one pass; a last batch of one per rank is merged.

    It is merged into the previous batch, since batch norm cannot train on one value per channel.
    """
    whole, rest = divmod(samples, batch_size)
    return whole + (rest >= 2 * ranks or (rest > 0 and whole == 0))


class ResidentLoader:
    """Sized iterable over the batches of one set, in a new order each epoch."""

    def __init__(
        self,
        data: ImageSet,
        *,
        batch_size: int,
        augment: Augmentation | None,
        seed: int,
        device: torch.device | str | None = None,
        rank: Rank = SINGLE_PROCESS,
        parts: int = 1,
    ) -> None:
        """Store the set and the options.

        Args:
            data: The set.
            batch_size: B, over all ranks; the last batch of an epoch may be smaller, or larger by
                one per rank.
            augment: Called with uint8 (B, C, H, W) and a generator; None: no augmentation.
            seed: Seed of order and augmentation.
            device: Device of the batches; None: the device of the set.
            rank: Rank whose part of every batch is returned.
            parts: Micro-batches that each batch is returned in; fewer where they would hold less
                than two images per rank.
        """
        self.data = data
        self.batch_size = batch_size
        self.augment = augment
        self.seed = seed
        self.device = data.label.device if device is None else torch.device(device)
        self.rank = rank
        self.parts = parts
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches, or of their parts."""
        count = self.count_batches()
        return (count - 1) * self._count_parts(0) + self._count_parts(count - 1) if count else 0

    def count_batches(self) -> int:
        """Return the number of whole batches."""
        return num_batches(len(self.data), self.batch_size, self.rank.count)

    def _get_size(self, number: int) -> int:
        """Return the size of batch ``number`` over all ranks."""
        last = number == self.count_batches() - 1
        return len(self.data) - number * self.batch_size if last else self.batch_size

    def _count_parts(self, number: int) -> int:
        """Return the number of micro-batches of batch ``number``, the same on all ranks."""
        return max(1, min(self.parts, self._get_size(number) // (2 * self.rank.count)))

    def batch_weight(self, number: int) -> float:
        """Return the weight of this rank's mean over batch ``number`` in the mean over ranks."""
        size = self._get_size(number)
        return self.rank.count_samples(size) * self.rank.count / size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines order and augmentation."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch; each sample occurs once."""
        for number, make in enumerate(self.iterate_lazily()):
            if self.parts == 1:
                yield make()  # kept by no variable
            else:
                yield from make().split(self._count_parts(number), self.parts)

    def iterate_lazily(self) -> Iterator[Callable[[], Batch]]:
        """Yield functions that return the whole batches; to be called once each, in order."""
        # Ranks must use the same order, so with several ranks it is drawn on the CPU.
        source = self.data.label.device if self.rank == SINGLE_PROCESS else torch.device("cpu")
        generator = epoch_generator(self.seed, self.epoch, source)
        noise = epoch_generator(self.seed + 1 + 1009 * self.rank.number, self.epoch, self.device)
        order = torch.randperm(len(self.data), generator=generator, device=source)
        parts = list[Tensor]()
        count = self.count_batches()
        for number in range(count):
            last = number == count - 1
            start = number * self.batch_size
            rows = order[start : None if last else start + self.batch_size]
            parts.append(rows[self.rank.number :: self.rank.count].to(self.data.label.device))
        images = read_batches(self.data.image, parts, self.device)
        for number, rows in enumerate(parts):
            weight = 1.0 if self.rank == SINGLE_PROCESS else self.batch_weight(number)
            yield functools.partial(self._make_batch, images, rows, noise, weight)

    def _make_batch(
        self, images: Iterator[Tensor], rows: Tensor, noise: torch.Generator, weight: float
    ) -> Batch:
        """Return the batch of the next images, which are those of ``rows``."""
        image = next(images)
        label, index = (
            t[rows].to(self.device, non_blocking=True) for t in (self.data.label, self.data.index)
        )
        if self.augment is not None:
            image = self.augment(image, noise)
        return Batch(self.data.view(image, index), label, index, weight)


class RequestLoader:
    """Iterable over the batches that a method uses, as dicts by set name.

    The method selects "forget", "retain", "all" and "trusted" per epoch. An epoch is one pass over the longest
    set other than "forget", which is repeated.
    """

    def __init__(
        self,
        request: Request,
        *,
        uses: Callable[[int], tuple[str, ...]],
        batch_sizes: Callable[[], Mapping[str, int]],
        augment: Augmentation | None,
        seed: int,
        device: torch.device | str | None = None,
        rank: Rank = SINGLE_PROCESS,
    ) -> None:
        """Store the request and the options; see ``ResidentLoader`` and ``UnlearningMethod``."""
        self.request = request
        self.uses = uses
        self.batch_sizes = batch_sizes
        self.augment = augment
        self.seed = seed
        self.device = device
        self.rank = rank
        self.epoch = 0
        self._loaders: dict[str, ResidentLoader] = {}

    def get_loader(self, name: str) -> ResidentLoader:
        """Return the loader of one set.

        Raises:
            ValueError: If the set does not exist.
        """
        parts: dict[str, Callable[[], ImageSet]] = {
            "forget": lambda: self.request.forget,
            "retain": lambda: self.request.retain,
            "all": self.request.get_all_samples,
        }
        if isinstance(self.request, TrustedRequest):
            parts["trusted"] = self._get_trusted
        if name not in parts:
            raise ValueError(f"a method may use {', '.join(parts)}; it asked for '{name}'")
        if name not in self._loaders:
            self._loaders[name] = ResidentLoader(
                parts[name](),
                batch_size=1,
                augment=self.augment,
                seed=self.seed + 7 * (1 + list(parts).index(name)),
                device=self.device,
                rank=self.rank,
            )
        self._loaders[name].batch_size = self.batch_sizes()[name]
        return self._loaders[name]

    def count_steps(self, name: str, batch_size: int) -> int:
        """Return the number of batches of one pass."""
        if name == "trusted":
            return num_batches(len(self._get_trusted()), batch_size)
        forget, retain = len(self.request.forget), len(self.request.retain)
        samples = {"forget": forget, "retain": retain, "all": forget + retain}[name]
        return num_batches(samples, batch_size, self.rank.count)

    def _get_trusted(self) -> ImageSet:
        assert isinstance(self.request, TrustedRequest)
        return self.request.split_trusted()[0]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Batch]]:
        """Yield the epoch's batches."""
        for make in self.iterate_lazily():
            yield make()

    def iterate_lazily(self) -> Iterator[Callable[[], dict[str, Batch]]]:
        """Yield functions that return the epoch's batches; to be called once each, in order."""
        names = self.uses(self.epoch)
        loaders = {name: self.get_loader(name) for name in names}
        longest = max(
            (n for n in names if n != "forget"), key=lambda n: len(loaders[n]), default=""
        )
        streams = {}
        for name, loader in loaders.items():
            loader.set_epoch(self.epoch)
            repeat = longest and name != longest
            streams[name] = self._repeat_batches(loader) if repeat else loader.iterate_lazily()
        while True:
            makes = {name: next(stream, None) for name, stream in streams.items()}
            if any(make is None for make in makes.values()):
                return
            yield functools.partial(_make_all, makes)

    def _repeat_batches(self, loader: ResidentLoader) -> Iterator[Callable[[], Batch]]:
        round_ = 0
        while True:
            loader.set_epoch(self.epoch + 10_007 * round_)
            yield from loader.iterate_lazily()
            round_ += 1


def _make_all(makes: Mapping[str, Callable[[], Batch] | None]) -> dict[str, Batch]:
    return {name: make() for name, make in makes.items() if make is not None}


class DeferredBatches:
    """Iterable over functions that make the batches of a ``RequestLoader``.

    Lightning takes one item ahead of iterables without a length: of this one, it holds a function
    instead of a second batch.
    """

    def __init__(self, loader: RequestLoader) -> None:
        """Store the loader."""
        self.loader = loader

    def __iter__(self) -> Iterator[Callable[[], dict[str, Batch]]]:
        """Yield functions, to be called once each, in order."""
        return self.loader.iterate_lazily()
