"""Flipped bits, foreign and huge files in the caches of real commands: the rows stay the same."""

import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def flip_bit(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty images in two folders."""
    draw = random.Random(0)
    for number, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            colour = tuple(draw.randrange(100) + 120 * number for _ in range(3))
            Image.new("RGB", (12, 12), colour).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_broken_models_scores_and_images_are_made_again(
    nursery: Any, store: Any, photos: Path, tmp_path: Path
):
    run = [
        "dataset=imagefolder", f"dataset.root={photos}", "dataset.image_size=12", "model.width=2",
        "pretraining.epochs=2", "trainer.accelerator=cpu", "corruption=random_label",
        "corrupted=0.2", "method=finetune", "score=confidence", "force=true",
    ]  # fmt: skip
    code, lines = nursery.call(tmp_path, *run)
    assert code == 0, lines
    table, draw = store(tmp_path).table(), random.Random(1)
    stores = tmp_path / "outputs" / "data_cache"
    caches = [*store(tmp_path).trained(), *stores.glob("*.index")]
    pixels = [*stores.glob("*.pixels")]
    assert len(caches) >= 3 and len(pixels) == 1
    for turn in range(4):
        for path in pixels if turn == 3 else caches:
            flip_bit(path, draw)
        code, lines = nursery.call(tmp_path, *run)
        assert code == 0, lines
        told = [sum(str(path) in line for line in lines) for path in (*caches, *pixels)]
        assert told == ([0] * len(caches) + [1] if turn == 3 else [1] * len(caches) + [1])
        assert all(path.with_name(f"{path.name}.broken").exists() for path in caches)
        assert store(tmp_path).table() == table
    code, lines = nursery.call(tmp_path, *run)
    assert code == 0 and not any(" is broken" in line for line in lines), lines


def test_an_original_of_another_seed_is_not_used(
    nursery: Any, store: Any, small: tuple[str, ...], tmp_path: Path
):
    run = [*small, "method=original", "save_model=false", "force=true"]
    assert nursery.call(tmp_path, *run)[0] == 0
    (mine,) = store(tmp_path).trained()
    table = store(tmp_path).table()
    assert nursery.call(tmp_path, *run, "seed=1")[0] == 0
    (other,) = set(store(tmp_path).trained()) - {mine}
    shutil.copyfile(other, mine)
    code, lines = nursery.call(tmp_path, *run)
    assert code == 0 and sum("under another key" in line for line in lines) == 1, lines
    assert [row for row in store(tmp_path).table() if row["seed"] == 0] == table


def test_a_broken_resume_point_costs_the_epochs_alone(nursery: Any, store: Any, tmp_path: Path):
    run = [
        "dataset=synthetic", "model.width=2", "trainer.accelerator=cpu", "pretraining.epochs=15",
        "trainer.checkpoint_seconds=0", "method=original",
    ]  # fmt: skip
    homes = [tmp_path / name for name in ("undisturbed", "interrupted")]
    for home in homes:
        home.mkdir()
    assert nursery.call(homes[0], *run)[0] == 0
    process = nursery.start(homes[1], *run)
    points = homes[1] / "outputs" / "checkpoints"
    assert process.until(lambda: [*points.glob("*/resume.ckpt")]), process.lines()
    process.kill(signal.SIGTERM)
    process.wait()
    (point,) = points.glob("*/resume.ckpt")
    flip_bit(point, random.Random(2))
    code, lines = nursery.call(homes[1], *run)
    assert code == 0, lines
    told = [line for line in lines if str(point) in line]
    assert len(told) == 1 and told[0].startswith("training from the start: "), lines
    assert point.with_name("resume.ckpt.broken").exists()
    assert store(homes[1]).table() == store(homes[0]).table()


def test_a_huge_sparse_checkpoint_is_one_line(
    nursery: Any, store: Any, small: tuple[str, ...], tmp_path: Path
):
    assert nursery.call(tmp_path, *small, "method=original")[0] == 0
    (cached,) = store(tmp_path).trained()
    (tmp_path / "list.csv").write_text("0\n1\n")
    listed = ["forget_set=file", f"forget_set.path={tmp_path / 'list.csv'}"]
    given = [*small, f"checkpoint={tmp_path / 'mine.pt'}", "corruption=none", *listed]
    before = sorted(tmp_path.rglob("*"))
    for start in (cached.read_bytes(), b""):
        for size in (1 << 40, 1 << 30):
            (tmp_path / "mine.pt").write_bytes(start)
            os.truncate(tmp_path / "mine.pt", size)
            own = [*small, f"checkpoint={tmp_path / 'mine.pt'}", "corruption=random_label"]
            code, lines = nursery.call(tmp_path, *given, "method=finetune")
            assert code == 2 and len(lines) == 1 and "mine.pt" in lines[0], lines
            code, lines = nursery.call(tmp_path, *own, command="evaluate")
            assert code == 2 and len(lines) == 1 and "mine.pt" in lines[0], lines
    (tmp_path / "mine.pt").unlink()
    made = [p for p in sorted(tmp_path.rglob("*")) if p not in before]
    assert all(p.name.startswith("said-") for p in made), made
