"""Pre-training against the conventional stack: what a published unlearning repository does.

Images pass one by one through torchvision's transforms in the workers of a DataLoader, training
runs in fp32 on contiguous tensors with the loss read back each step, and the test set is evaluated
after every epoch.
"""

import warnings
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measuring import (
    CROP,
    DEVICE,
    MEAN,
    ON_GPU,
    STD,
    Table,
    alternate,
    engine,
    images,
    network,
    ratio,
    timed,
    workers_cpu,
)  # fmt: skip
from benchmarks.step import WIDTH, sgd
from unlearn.core.types import ImageSet
from unlearn.models.inference import compute_accuracy
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import WarmupLinear

TRAIN, TEST, BATCH, EPOCHS, WORKERS = (
    (50000, 10000, 512, 2, 8) if ON_GPU else (2048, 512, 256, 2, 2)
)


class Pictures(Dataset[Any]):
    """One transformed picture at a time."""

    def __init__(self, data: ImageSet, *, train: bool) -> None:
        """Keep the pixels as arrays."""
        self.image = data.image.permute(0, 2, 3, 1).cpu().numpy()
        self.label = data.label.tolist()
        moves = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        ends = [transforms.ToTensor(), transforms.Normalize((MEAN,) * 3, (STD,) * 3)]
        self.transform = transforms.Compose([*(moves if train else []), *ends])

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.label)

    def __getitem__(self, number: int) -> Any:
        """Return a picture and its label."""
        return self.transform(Image.fromarray(self.image[number])), self.label[number]


def conventional(model: nn.Module, train: ImageSet, test: ImageSet) -> float:
    """Train and evaluate; return the last test accuracy."""
    model.to(DEVICE)
    options: dict[str, Any] = {
        "batch_size": BATCH, "num_workers": WORKERS, "pin_memory": ON_GPU, "drop_last": False,
    }  # fmt: skip
    learn = DataLoader(Pictures(train, train=True), shuffle=True, **options)
    check = DataLoader(Pictures(test, train=False), **options)
    optimizer, value, total = sgd(model.parameters()), 0.0, 0.0
    for _ in range(EPOCHS):
        model.train()
        for image, label in learn:
            loss = nn.functional.cross_entropy(model(image.to(DEVICE)), label.to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            right = sum(
                (model(image.to(DEVICE)).argmax(1) == label.to(DEVICE)).sum().item()
                for image, label in check
            )
        value = right / len(test)
    return value


def product(model: nn.Module, train: ImageSet, test: ImageSet) -> float:
    """Train as the product does, and evaluate at the end."""
    recipe = Pretraining(
        epochs=EPOCHS, batch_size=BATCH, optimizer=sgd, capacity=1.0, density=0.0,
        schedule=WarmupLinear(warmup_fraction=0.1, stretch=1.0),
    )  # fmt: skip
    pretrain(model, train, recipe, engine("auto"), augment=CROP, seed=0)
    return compute_accuracy(model, test)


def table(rounds: int) -> Table:
    """Compare the two."""
    train, test = images(TRAIN, 3, 32), images(TEST, 3, 32, seed=1)
    sides = {"unlearn": product, "conventional": conventional}

    extra: dict[str, float] = {}

    def measured(name: str) -> float:
        before = workers_cpu()
        seconds = timed(lambda: sides[name](network(WIDTH), train, test))
        extra[name] = workers_cpu() - before
        return seconds

    warnings.filterwarnings("ignore", message=".*worker.*")  # more workers than cores
    found = alternate({n: lambda n=n: measured(n) for n in sides}, rounds, warm=ON_GPU)
    middle = {name: sorted(times)[len(times) // 2] for name, times in found.items()}
    rows = [
        [n, f"{s:.2f}", f"{extra[n]:.2f}", f"{EPOCHS * TRAIN / s:,.0f}"] for n, s in middle.items()
    ]
    faster = ratio(found["conventional"], found["unlearn"])
    note = (
        f"ResNet-9 width {WIDTH}, 32 px, {TRAIN} images, batch {BATCH}, {EPOCHS} epochs, {WORKERS} "
        f"workers, which are not part of the seconds. unlearn is **{faster:.1f} times** as fast; "
        f"target: {10 if ON_GPU else 3}."
    )
    columns = ("(b) stack", "seconds", "CPU seconds of workers", "images/s")
    return Table("(b) against the conventional stack", columns, rows, note)
