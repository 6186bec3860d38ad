"""Kill -9 at any moment of a sweep: nothing is lost, doubled or read by halves."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SWEEP = (
    "--multirun", "dataset=imagefolder", "dataset.image_size=12", "model.width=2",
    "pretraining.epochs=3", "trainer.accelerator=cpu", "trainer.checkpoint_seconds=0",
    "corruption=random_label", "corrupted=0.2", "discovery=0.5,1.0", "seed=0,1",
    "method=original,finetune",
)  # fmt: skip
CELLS = 8
PLACES = ("data_cache", "checkpoints/", "row-0", "results.jsonl", ".hydra", "curves")
"""Parts of the paths at whose writing a kill is to come; other kills come at any moment."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images in two folders: decoded into the cache by the first cell."""
    root = tmp_path_factory.mktemp("photos")
    draw = random.Random(0)
    for number, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for i in range(20):
            grey = tuple(draw.randrange(100) + 120 * number for _ in range(3))
            Image.new("RGB", (12, 12), grey).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def undisturbed(nursery: Any, store: Any, photos: Path, tmp_path_factory: Any) -> Any:
    """Return the table of a sweep that nobody disturbs, and how long its work took."""
    home = tmp_path_factory.mktemp("undisturbed")
    begun = time.monotonic()
    code, lines = nursery.call(home, *SWEEP, f"dataset.root={photos}")
    assert code == 0 and lines[-1] == f"{CELLS} done, 0 failed, 0 skipped", lines
    return store(home).table(), time.monotonic() - begun


def disturbed(
    nursery: Any, store: Any, photos: Path, home: Path, seconds: float, kills: int, draw: Any
) -> list[str]:
    """Kill a sweep again and again; return what was going on each time.

    A kill comes at a moment drawn from the time that the sweep takes, or at one of the next writes
    of a file of one of ``PLACES``. It may not come before the end; then results are given up for the
    next attempt.
    """
    kept = store(home)
    moments = []
    while len(moments) < kills:
        before = kept.files()
        turn = len(moments) % (len(PLACES) + 3)
        on_write = turn < len(PLACES)
        if on_write and PLACES[turn] == "data_cache":
            uncache(kept)
        process = nursery.start(
            home, *SWEEP, f"dataset.root={photos}",
            fatal=draw.randrange(1, 3) if on_write else 0, place=PLACES[turn] if on_write else "",
        )  # fmt: skip
        if not on_write:
            time.sleep(draw.uniform(0.1, 0.8 * seconds))
            process.kill()
        code, lines = process.wait()
        after = kept.files()
        assert before.items() <= after.items(), "a finished row is lost or has changed"
        listed = [row["run_id"] for row in kept.mirror()]
        assert len(listed) == len(set(listed)) and set(listed) >= set(after)
        assert not any("Traceback" in line for line in lines), lines
        if code == -signal.SIGKILL:
            moments.append(lines[-1] if lines else "starting")
        else:
            assert code == 0, lines
        if len(after) == CELLS:  # all done: take the last results and models away, and go on
            forget(kept, draw)
    return moments


def forget(kept: Any, draw: Any, count: int = CELLS // 2) -> None:
    """Remove half of the rows, of their lines, the models and the cached images."""
    lines = (kept.results / "results.jsonl").read_text().splitlines()
    gone = set(draw.sample(sorted(kept.files()), count))
    for name in gone:
        (kept.results / name / "row-0.json").unlink()
    rest = [line for line in lines if not any(name in line for name in gone)]
    (kept.results / "results.jsonl").write_text("".join(f"{line}\n" for line in rest))
    for path in kept.trained():
        path.unlink()
    uncache(kept)


def uncache(kept: Any) -> None:
    """Remove the decoded images."""
    for path in (kept.home / "outputs" / "data_cache").glob("*.pixels*"):
        path.unlink()


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {k: (one.get(k), other.get(k)) for k in one.keys() | other if one.get(k) != other.get(k)}


def check(nursery: Any, store: Any, photos: Path, home: Path, undisturbed: Any) -> None:
    code, lines = nursery.call(home, *SWEEP, f"dataset.root={photos}")
    assert code == 0, lines
    pairs = zip(store(home).table(), undisturbed[0], strict=True)
    assert [differing(one, other) for one, other in pairs] == [{}] * CELLS


def test_a_few_kills_lose_and_double_nothing(
    nursery: Any, store: Any, photos: Path, undisturbed: Any, tmp_path: Path
):
    draw = random.Random(1)
    disturbed(nursery, store, photos, tmp_path, undisturbed[1], 4, draw)
    check(nursery, store, photos, tmp_path, undisturbed)


@pytest.mark.slow
def test_thirty_kills_lose_and_double_nothing(
    nursery: Any, store: Any, photos: Path, undisturbed: Any, tmp_path: Path
):
    moments = disturbed(nursery, store, photos, tmp_path, undisturbed[1], 30, random.Random(2))
    print(*moments, sep="\n")
    hit = {place for place in PLACES if any("killed at" in m and place in m for m in moments)}
    assert hit == set(PLACES)
    check(nursery, store, photos, tmp_path, undisturbed)


STORM = (*SWEEP[:-3], "discovery=0.5,1.0", "seed=0,1,2,3", "method=original,finetune,ssd")
CACHES = (
    "checkpoints/*/model.pt",
    "checkpoints/*/resume.ckpt",
    "data_cache/*.pixels",
    "data_cache/*.index",
)


def flip_bit(home: Path, draw: random.Random) -> str | None:
    """Flip one bit of a random cached file in place; return which."""
    files = sorted(p for pattern in CACHES for p in (home / "outputs").glob(pattern))
    if not files:
        return None
    path = draw.choice(files)
    try:
        with path.open("r+b") as file:
            at = draw.randrange(max(1, path.stat().st_size))
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1 << draw.randrange(8)]) if byte else b"")
    except FileNotFoundError:  # set aside or replaced in the meantime
        return None
    return f"{path.parent.name}/{path.name}"


@pytest.mark.slow
def test_a_storm_of_kills_and_flipped_bits_changes_no_value(
    nursery: Any, store: Any, photos: Path, tmp_path_factory: Any, tmp_path: Path
):
    """60 kills over 24 cells in three processes, while a bit of a cache is flipped every 5 s."""
    words, cells = (*STORM, f"dataset.root={photos}"), 24
    alone = tmp_path_factory.mktemp("alone")
    code, lines = nursery.call(alone, *words)
    assert code == 0 and lines[-1] == f"{cells} done, 0 failed, 0 skipped", lines
    draw, kept = random.Random(3), store(tmp_path)
    running = [nursery.start(tmp_path, *words) for _ in range(3)]
    kills, flips, next_flip = 0, list[str](), time.monotonic() + 5
    while kills < 60:
        time.sleep(draw.uniform(0.2, 1.5))
        if time.monotonic() >= next_flip:
            next_flip += 5
            flips += filter(None, [flip_bit(tmp_path, draw)])
        number = draw.randrange(3)
        running[number].kill()
        code, lines = running[number].wait()
        kills += code == -signal.SIGKILL
        assert not any("Traceback" in line for line in lines), lines
        rows = kept.files()
        if len(rows) == cells:
            forget(kept, draw, cells // 2)
        running[number] = nursery.start(tmp_path, *words)
    for process in running:
        code, lines = process.wait()
        assert code == 0, lines
    print(f"{kills} kills; flipped: {', '.join(flips)}")
    code, lines = nursery.call(tmp_path, *words)
    assert code == 0, lines
    pairs = zip(kept.table(), store(alone).table(), strict=True)
    assert [differing(one, other) for one, other in pairs] == [{}] * cells
    assert len(flips) >= 5
