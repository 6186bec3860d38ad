"""A user: a folder of images of which some lie in the wrong class, and a model trained on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch import nn

from unlearn.config.command_line import add_checkpoint_defaults
from unlearn.config.composition import compose_config, enable_composition, resolve_config
from unlearn.config.identity import compute_run_id
from unlearn.config.registration import config_dir
from unlearn.config.validation import check_config
from unlearn.core.job import Job

CLASSES = ("ash", "<birch>", "cedar")
MEAN = STD = (0.5, 0.5, 0.5)


def net(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )  # fmt: skip


def image(color: int, seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 120, (12, 12, 3))
    pixels[..., color] += 100
    return pixels.astype(np.uint8)


def build(node: Any) -> Any:
    return instantiate(node, _convert_="all")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty training images, eight of them stamped and in a wrong folder, and thirty for testing."""
    root = tmp_path_factory.mktemp("user") / "photos"
    for part, count, wrong in (("train", 20, 8), ("test", 10, 0)):
        for k, name in enumerate(sorted(CLASSES)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = image(k, 100 * k + i)
                if name == "ash" and i < wrong:
                    pixels = image(2 * (i % 2), 900 + i)
                    pixels[:6, :6] = 255
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def data(photos: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images as the user's own code reads them, float (60, 3, 12, 12), and labels."""
    files = sorted((photos / "train").rglob("*.png"))
    pixels = np.stack([np.array(Image.open(f)) for f in files]).transpose(0, 3, 1, 2)
    names = sorted(CLASSES)
    label = torch.tensor([names.index(f.parent.name) for f in files])
    return (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.5, label


@pytest.fixture(scope="session")
def trained(data: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    """The user's model: it knows the classes, and some of the wrong images by heart."""
    torch.manual_seed(0)
    network = net(3).train()
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(data[0]), data[1]).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """Half of the wrong images, with a true label for one."""
    path = tmp_path / "bad.csv"
    path.write_text("file,label\nash\\00.png,<birch>\nash\\01.png\nash\\02.png\nash\\03.png\n")
    return path


@pytest.fixture
def words(
    tmp_path: Path, photos: Path, trained: nn.Module, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What the user writes on the command line."""
    monkeypatch.setenv("UNLEARN_HOME", str(tmp_path / "home"))
    (tmp_path / "theirs.py").write_text(
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('made', {__file__!r})\n"
        "made = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(made)\n"
        "build = made.net\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "theirs", raising=False)
    state = {f"model.{k}": v for k, v in trained.state_dict().items()}
    torch.save({"epoch": 40, "state_dict": state}, tmp_path / "mine.ckpt")
    return [
        "dataset=imagefolder", f"dataset.root={photos}", "dataset.image_size=12",
        "dataset.mean=[.5,.5,.5]", "dataset.std=[.5,.5,.5]", "model=import",
        "model.path=theirs:build", f"checkpoint={tmp_path / 'mine.ckpt'}", "forget_set=file",
        f"forget_set.path={bad}", "method=npo", "method.epochs=2", "method.batch_size=16",
        "trainer.accelerator=cpu", "trainer.progress=false",
    ]  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """Make a job of a command line, checked as the command line checks it."""

    def make(*overrides: str) -> Job:
        every = add_checkpoint_defaults("unlearn", list(overrides))
        folders = [config_dir()]
        with enable_composition(folders):
            config = resolve_config(compose_config("unlearn", every, folders))
        check_config(config, {})
        config.pop("tune")
        name = compute_run_id(config)
        folder = Path(config["paths"]["results"]) / name
        folder.mkdir(parents=True, exist_ok=True)
        return Job(config, name, folder, config["names"], build)

    return make
