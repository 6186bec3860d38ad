"""SIGTERM and Ctrl-C in the middle: over at once, and the same command ends at the same bits."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

RUN = (
    "dataset=synthetic", "model.width=2", "trainer.accelerator=cpu", "pretraining.epochs=15",
    "trainer.checkpoint_seconds=0", "method=finetune", "method.epochs=30",
)  # fmt: skip


def weights(home: Path) -> list[dict[str, torch.Tensor]]:
    """Return the state of the original and of the healed model."""
    (original,) = (home / "outputs" / "checkpoints").glob("*/model.pt")
    (healed,) = (home / "outputs" / "results").glob("*/model.pt")
    return [torch.load(original, weights_only=True)["state"], torch.load(healed, weights_only=True)]


def same_bits(one: Path, other: Path) -> bool:
    pairs = list(zip(weights(one), weights(other), strict=True))
    assert all(a.keys() == b.keys() and len(a) > 10 for a, b in pairs)
    return all(torch.equal(a[k], b[k]) for a, b in pairs for k in a)


@pytest.fixture(scope="module")
def undisturbed(nursery: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("undisturbed")
    code, lines = nursery.call(home, *RUN)
    assert code == 0, lines
    return home


def test_two_processes_end_at_the_same_bits(
    nursery: Any, store: Any, undisturbed: Path, tmp_path: Path
):
    assert nursery.call(tmp_path, *RUN)[0] == 0
    assert same_bits(tmp_path, undisturbed)
    assert store(tmp_path).table() == store(undisturbed).table()
    other = tmp_path / "other"
    other.mkdir()
    assert nursery.call(other, *RUN, "seed=1", "pretraining.epochs=1", "method.epochs=1")[0] == 0
    assert not same_bits(other, undisturbed)


@pytest.mark.parametrize(
    ("sent", "code", "begun"),
    [
        (signal.SIGTERM, 143, "checkpoints/*/resume.ckpt"),
        (signal.SIGINT, 130, "results/*/curves/metrics.csv"),
    ],
    ids=["SIGTERM in training", "Ctrl-C in unlearning"],
)
def test_an_interrupted_run_ends_at_once_and_goes_on_to_the_same_bits(
    nursery: Any, store: Any, undisturbed: Path, tmp_path: Path,
    sent: signal.Signals, code: int, begun: str,
):  # fmt: skip
    process = nursery.start(tmp_path, *RUN)
    assert process.until(lambda: [*(tmp_path / "outputs").glob(begun)]), process.lines()
    process.kill(sent)
    told = time.monotonic()
    ended, lines = process.wait()
    assert ended == code, lines
    assert time.monotonic() - told < 10  # a loaded machine included
    assert lines[-1] == "interrupted; finished runs are kept, repeat the command to continue"
    assert not any("Traceback" in line or "rror" in line for line in lines), lines
    assert not store(tmp_path).files()
    again, lines = nursery.call(tmp_path, *RUN)
    assert again == 0, lines
    assert same_bits(tmp_path, undisturbed)
    assert store(tmp_path).table() == store(undisturbed).table()
    if begun.startswith("checkpoints"):  # the curve holds the epochs of both parts
        assert any("(15 epochs, continuing after epoch " in line for line in lines), lines
        (curve,) = (tmp_path / "outputs").glob("checkpoints/*/curves/metrics.csv")
        epochs = [line.split(",")[0] for line in curve.read_text().splitlines()[1:]]
        assert sorted({float(e) for e in epochs}) == [float(e) for e in range(1, 16)]
