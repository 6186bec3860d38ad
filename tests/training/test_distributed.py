"""One training by several processes: the same result, one writer, one line per failure."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from unlearn.core.errors import CollapsedError
from unlearn.core.types import ImageSet
from unlearn.models.vit import ViT
from unlearn.scoring.memorization.learning_events import LearningEvents
from unlearn.training.distributed import Rank, RankError, run_distributed
from unlearn.training.engine import Engine
from unlearn.training.loader import ResidentLoader, num_batches
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant

TWO = 2


def recipe(lr: float = 0.05, batch_size: int = 35) -> Pretraining:
    optimizer = functools.partial(torch.optim.SGD, lr=lr, momentum=0.9)
    return Pretraining(
        epochs=2, batch_size=batch_size, optimizer=optimizer, schedule=Constant(),
        capacity=1.0, density=0.0,
    )  # fmt: skip


def spread(engine: Engine) -> Engine:
    two = copy.copy(engine)
    object.__setattr__(two, "devices", TWO)
    return two


@pytest.fixture
def vit() -> ViT:
    """A network without batch norm: its result does not depend on how a batch is split."""
    torch.manual_seed(0)
    return ViT(
        in_channels=1, image_size=12, num_classes=3, width=8, depth=1, heads=2, head_width=4, mlp_width=16,
        patch_size=4,
    )  # fmt: skip


@pytest.mark.parametrize("size", [35, 40, 64])
def test_ranks_share_every_batch(clean: tuple[ImageSet, ImageSet], size: int):
    whole = ResidentLoader(clean[0], batch_size=size, augment=None, seed=3)
    parts = [
        ResidentLoader(clean[0], batch_size=size, augment=None, seed=3, rank=Rank(n, TWO))
        for n in range(TWO)
    ]
    batches = list(zip(*parts, strict=True))
    assert len(batches) == len(parts[0]) == len(whole) == num_batches(200, size, TWO)
    for number, (both, one) in enumerate(zip(batches, whole, strict=True)):
        index = torch.cat([part.index for part in both])
        assert torch.equal(index.sort().values, one.index.sort().values)
        share = [len(part.label) * TWO / len(index) for part in both]
        assert [part.batch_weight(number) for part in parts] == pytest.approx(share)


def test_no_rank_is_left_with_one_image():
    assert num_batches(67, 64) == 2 and num_batches(67, 64, TWO) == 1
    assert num_batches(68, 64, TWO) == 2


def test_two_ranks_learn_what_one_process_learns(
    clean: tuple[ImageSet, ImageSet], vit: ViT, engine: Engine, tmp_path: Path
):
    results = {}
    for name, how in (("one", engine), ("two", spread(engine))):
        network, folder = copy.deepcopy(vit), tmp_path / name
        seen = LearningEvents(mode="online")
        notes = pretrain(
            network, clean[0], recipe(), how, augment=None, seed=1,
            loggers=[CSVLogger(folder, name="curves", version="")], recorders=[seen],
            resume=folder / "resume.ckpt",
        )  # fmt: skip
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        curves = (folder / "curves" / "metrics.csv").read_text().splitlines()
        results[name] = network.state_dict(), seen.get_records(), notes, files, curves
    (state, records, notes, files, curves), (state2, records2, notes2, files2, curves2) = (
        results["one"], results["two"]
    )  # fmt: skip
    moved = max(float((state[k] - v).abs().max()) for k, v in vit.state_dict().items())
    assert moved > 1e-2
    for key in state:
        torch.testing.assert_close(state2[key], state[key], atol=2e-5, rtol=1e-4, msg=key)
    for key in records:
        torch.testing.assert_close(records2[key], records[key], atol=1e-4, rtol=1e-3)
    assert notes2["images_seen"] == notes["images_seen"] == 400
    assert files == files2 == ["curves/metrics.csv"]  # one writer, nothing left behind
    assert len(curves) == len(curves2) == 3
    columns = curves[0].split(",")
    loss = columns.index("train/loss")
    for one, two in zip(curves[1:], curves2[1:], strict=True):
        assert float(two.split(",")[loss]) == pytest.approx(float(one.split(",")[loss]), rel=1e-4)


@pytest.mark.slow
def test_a_loss_that_is_lost_ends_all_ranks(clean: tuple, vit: ViT, engine: Engine):
    with pytest.raises(CollapsedError, match=r"^loss is (nan|inf) after epoch 0$"):
        pretrain(vit, clean[0], recipe(lr=1e30), spread(engine), augment=None, seed=1)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("os.kill(os.getpid(), 9)", "rank 1 of 2 was ended by SIGKILL; a machine out of memory"),
        pytest.param(
            "os._exit(7)", "rank 1 of 2 ended with code 7: last words", marks=pytest.mark.slow
        ),
        pytest.param(
            "1 / 0", "rank 1 of 2: ZeroDivisionError: division by zero", marks=pytest.mark.slow
        ),
    ],
)
def test_a_failed_rank_is_named_and_ends_the_others(
    fault: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):  # fmt: skip
    (tmp_path / "faulty_rank.py").write_text(
        "import os, sys\n"
        "from torch import distributed\n"
        "def run(rank, folder):\n"
        "    (folder / str(rank.number)).write_text(str(os.getpid()))\n"
        "    distributed.barrier()\n"
        "    if rank.number == 1:\n"
        "        print('last words', file=sys.stderr, flush=True)\n"
        f"        {fault}\n"
        "    distributed.barrier()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import faulty_rank  # type: ignore[import-not-found]

    with pytest.raises(RankError) as caught:
        run_distributed(faulty_rank.run, tmp_path, count=TWO, backend="gloo", threads=2)
    assert str(caught.value).startswith(line)
    for number in range(TWO):
        pid = int((tmp_path / str(number)).read_text())
        assert not Path(f"/proc/{pid}").exists()
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_sent_is_said(clean: tuple, vit: ViT, engine: Engine):
    with pytest.raises(ValueError, match="sends network, data and recipe to other processes"):
        pretrain(vit, clean[0], recipe(), spread(engine), augment=lambda i, _: i, seed=1)


def test_what_cannot_be_shared_is_refused(clean: tuple, vit: ViT, engine: Engine):
    two = spread(engine)
    with pytest.raises(ValueError, match=r"batch_size must be at least 4 for trainer.devices=2"):
        pretrain(vit, clean[0], recipe(batch_size=3), two, augment=None, seed=1)
    seen = LearningEvents(mode="online")
    seen.joins = False
    with pytest.raises(ValueError, match=r"events needs whole batches"):
        pretrain(vit, clean[0], recipe(), two, augment=None, seed=1, recorders=[seen])
    with pytest.raises(ValueError, match=r"trainer.sync_batchnorm=true needs .* got 2 on cpu"):
        Engine(**{**vars(engine), "devices": 2, "sync_batchnorm": True})


def make_plain_network() -> nn.Sequential:
    """Return a network of blocks without batch norm and without scalar parameters."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        block,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def test_ranks_that_divide_the_weights_learn_what_one_process_learns(
    clean: tuple[ImageSet, ImageSet], engine: Engine, tmp_path: Path
):
    start, one, two = make_plain_network(), make_plain_network(), make_plain_network()
    divided = Engine(**{**vars(engine), "devices": TWO, "shard_weights": True, "accumulate": 2})
    kept, resume = LearningEvents(mode="online"), tmp_path / "resume.ckpt"
    pretrain(one, clean[0], recipe(), engine, augment=None, seed=1)
    object.__setattr__(divided, "checkpoint_seconds", 0.0)
    notes = pretrain(
        two, clean[0], recipe(), divided, augment=None, seed=1, recorders=[kept], resume=resume
    )
    assert notes["images_seen"] == 400 and not list(tmp_path.iterdir())
    for (key, value), first in zip(one.state_dict().items(), start.parameters(), strict=True):
        assert (value - first).abs().max() > 1e-3, key
        torch.testing.assert_close(two.state_dict()[key], value, atol=2e-5, rtol=1e-4, msg=key)


def test_what_cannot_be_divided_is_refused(clean: tuple, vit: ViT, engine: Engine):
    divided = Engine(**{**vars(engine), "devices": TWO, "shard_weights": True})
    with pytest.raises(ValueError, match=r"trainer=fsdp cannot divide the scalar parameter .*log_"):
        pretrain(vit, clean[0], recipe(), divided, augment=None, seed=1)
    with pytest.raises(ValueError, match=r"^trainer=fsdp needs trainer.compile=false$"):
        Engine(**{**vars(divided), "compile": True})
