"""Fixtures: a tiny task on CPU, and the shared data where there are any."""

import os
import signal
from pathlib import Path

import pytest
import torch

from unlearn.core.types import ImageSet
from unlearn.data.corruption.random_label import RandomLabel
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.synthetic import Synthetic
from unlearn.data.forget_sets.discovered import Discovered
from unlearn.data.task import Task
from unlearn.models.resnet9 import ResNet9
from unlearn.training.engine import Engine

REPOSITORY = Path(__file__).resolve().parent.parent

os.environ["MPLBACKEND"] = "Agg"  # no display
if "PYTEST_XDIST_WORKER" in os.environ and "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Tests run in the background of a shell: processes that a test interrupts would inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shared() -> Path:
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder


@pytest.fixture(scope="session")
def clean() -> tuple[ImageSet, ImageSet]:
    augment = Augment(crop_padding=0, flip_rate=0.0, cutout=0)
    data = Synthetic(
        num_classes=3,
        num_train=200,
        num_test=60,
        image_size=12,
        mean=(0.5,),
        std=(0.25,),
        augment=augment,
        seed=0,
    ).load()
    return data.train, data.test


@pytest.fixture
def task(clean: tuple[ImageSet, ImageSet]) -> Task:
    train, truth = RandomLabel()(clean[0], count=20, seed=0)
    found = Discovered(nested=True)(truth, rate=0.5, seed=0)
    score = torch.rand(len(train), generator=torch.Generator().manual_seed(0))
    return Task(train, clean[1], truth, found, records={"score": score})


@pytest.fixture
def network() -> ResNet9:
    torch.manual_seed(0)
    return ResNet9(in_channels=1, image_size=12, num_classes=3, width=2)


@pytest.fixture
def engine() -> Engine:
    return Engine(
        accelerator="cpu",
        devices=1,
        precision="32-true",
        unlearning_precision="32-true",
        channels_last=True,
        compile=False,
        progress=False,
        checkpoint_seconds=1e9,
        image_size=12,
    )
