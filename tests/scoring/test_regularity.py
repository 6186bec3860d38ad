"""How regular a list is: by hand, in order on the digits, and on a user's own folder without truth."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from unlearn.config.composition import compose_config, enable_composition, resolve_config
from unlearn.config.identity import compute_run_id
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.pipeline.estimate_regularity import estimate_list_regularity, estimate_regularity
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.scoring.regularity import Regularity, held_out, label_concentration, label_consistency

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("random_label", "interclass_confusion", "poison")


def test_concentration_is_the_chance_that_two_share_a_label():
    every = torch.arange(10).repeat(20)
    assert label_concentration(torch.full((7,), 3), every, 10) == 1
    pair = torch.tensor([0, 0, 1, 1])  # 4 of 12 ordered pairs; a tenth is usual
    assert label_concentration(pair, every, 10) == pytest.approx((4 / 12 - 0.1) / 0.9)
    assert label_concentration(torch.arange(10), every, 10) == 0
    assert label_concentration(torch.tensor([0, 0]), torch.zeros(9, dtype=torch.int64), 2) == 0


def test_consistency_and_halves():
    logits = torch.eye(3)[[0, 1, 2, 2]]
    assert label_consistency(logits, torch.tensor([0, 1, 2, 0])) == 0.75
    half = held_out(9, seed=1)
    assert len(half) == 4
    assert torch.equal(half, half.unique())
    assert not torch.equal(half, held_out(9, seed=2))


def test_the_levels():
    for value, level in ((0.98, "high"), (0.45, "medium"), (0.02, "low")):
        assert Regularity(30, value, value).level == level
    assert Regularity(30, 1.0, 0.5).value == 0.75


def job_of(folder: Path, *words: str) -> Job:
    usual = ["trainer.progress=false", "trainer.accelerator=cpu", f"paths.root={folder}"]
    with enable_composition([config_dir()]):
        config = resolve_config(compose_config("evaluate", [*usual, *words], [config_dir()]))
    build = lambda node: instantiate(node, _convert_="all")  # noqa: E731
    return Job(config, compute_run_id(config), folder, config["names"], build)


def values(folder: Path, seed: int, *more: str) -> list[Regularity]:
    jobs = [job_of(folder, f"corruption={kind}", f"seed={seed}", *more) for kind in KINDS]
    return [estimate_regularity(load_with_forget_set(job)) for job in jobs]


def ordered(found: list[Regularity]) -> None:
    low, middle, high = (one.value for one in found)
    assert low + 0.1 < middle < high - 0.1
    assert [one.level for one in found] == ["low", "medium", "high"]


def test_the_estimate_orders_the_kinds(tmp_path: Path):
    """With a model that is trained for a third of the usual time."""
    ordered(values(tmp_path, 0, "discovery=0.5", "pretraining.epochs=10"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_estimate_orders_the_kinds_for_each_seed(tmp_path: Path, seed: int):
    ordered(values(tmp_path, seed, "discovery=0.5"))


def test_what_is_known_is_not_estimated(tmp_path: Path):
    assert estimate_list_regularity(job_of(tmp_path, "corruption=poison")) is None
    assert estimate_list_regularity(job_of(tmp_path, "corruption=none", "discovery=null")) is None


def test_the_command_on_a_folder(tmp_path: Path):
    """Sixty images of two colours; of the dark ones nine bright ones lie in the wrong folder."""
    import numpy as np
    from PIL import Image

    drawn = np.random.default_rng(0)
    for k, name in enumerate(("bright", "dark")):
        for i in range(39):
            folder = tmp_path / "photos" / name
            folder.mkdir(parents=True, exist_ok=True)
            wrong = name == "dark" and i < 9
            pixels = drawn.integers(0, 100, (12, 12, 3)) + (0 if k and not wrong else 150)
            pixels[:4, :4] = 0 if wrong else pixels[:4, :4]
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    (tmp_path / "bad.csv").write_text("".join(f"dark/{i:02d}.png\n" for i in range(9)))
    words = [
        "advise=true", "corruption=none", "discovery=none", "dataset=imagefolder",
        f"dataset.root={tmp_path / 'photos'}", "dataset.image_size=12", "forget_set=file",
        f"forget_set.path={tmp_path / 'bad.csv'}", "model.width=4", "pretraining.epochs=2",
        "pretraining.batch_size=16",
    ]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "evaluate.py", *words],
        cwd=REPOSITORY, env=os.environ | {"UNLEARN_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "from 9 forget samples: consistency" in said and "regularity" in said
    assert "any corruption" not in said
