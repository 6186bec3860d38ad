"""Gradient accumulation: micro-batches give the step of the whole batch."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from unlearn.core.types import Batch, ImageSet
from unlearn.data.task import Task
from unlearn.methods.finetune import Finetune
from unlearn.models.vit import ViT
from unlearn.scoring.memorization.learning_events import LearningEvents
from unlearn.training.distributed import SINGLE_PROCESS, Rank
from unlearn.training.engine import Engine
from unlearn.training.loader import ResidentLoader
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant, WarmupLinear
from unlearn.training.unlearning import LightningFit


def recipe(batch_size: int = 35) -> Pretraining:
    optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    schedule = WarmupLinear(warmup_fraction=0.3, stretch=1.0)
    return Pretraining(
        epochs=2, batch_size=batch_size, optimizer=optimizer, schedule=schedule, capacity=1.0,
        density=0.0,
    )  # fmt: skip


def accumulate(engine: Engine, parts: int, **more: int) -> Engine:
    return Engine(**{**vars(engine), "accumulate": parts, **more})


@pytest.fixture
def vit() -> ViT:
    """A network without batch norm: its result does not depend on how a batch is split."""
    torch.manual_seed(0)
    return ViT(
        in_channels=1, image_size=12, num_classes=3, width=8, depth=1, heads=2, head_width=4,
        mlp_width=16, patch_size=4,
    )  # fmt: skip


@pytest.mark.parametrize("total", [None, 4])
def test_the_weighted_means_of_parts_add_up_to_the_mean(total: int | None):
    values = torch.arange(7.0) ** 2
    batch = Batch(values, torch.arange(7), torch.arange(7), weight=0.5)
    parts = batch.split(3, total)
    assert [len(part.label) for part in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([part.image for part in parts]), values)
    added = sum(part.image.mean() * part.weight for part in parts) / (total or 3)
    assert torch.allclose(torch.as_tensor(added), values.mean() * 0.5)


@pytest.mark.parametrize("rank", [SINGLE_PROCESS, Rank(0, 2), Rank(1, 2)])
@pytest.mark.parametrize(("size", "parts"), [(35, 4), (66, 8), (64, 3), (200, 2), (300, 7)])
def test_micro_batches_hold_each_sample_once(clean: tuple, rank: Rank, size: int, parts: int):
    data: ImageSet = clean[0]
    whole = ResidentLoader(data, batch_size=size, augment=None, seed=3, rank=rank)
    cut = ResidentLoader(data, batch_size=size, augment=None, seed=3, rank=rank, parts=parts)
    pieces = list(cut)
    assert len(pieces) == len(cut) and cut.count_batches() == len(whole)
    assert min(len(piece.label) for piece in pieces) >= 2  # as batch norm needs
    for number, batch in enumerate(whole):
        last = number == len(whole) - 1
        count = len(pieces) if last else parts  # Lightning steps after so many
        own, pieces = pieces[:count], pieces[count:]
        assert torch.equal(torch.cat([piece.index for piece in own]), batch.index)
        assert torch.equal(torch.cat([piece.image for piece in own]), batch.image)
        assert sum(piece.weight for piece in own) / parts == pytest.approx(batch.weight)
    assert not pieces


@pytest.mark.parametrize("size", [35, 66, 198])
def test_pretraining_learns_what_whole_batches_teach(
    clean: tuple[ImageSet, ImageSet], vit: ViT, engine: Engine, tmp_path: Path, size: int
):
    results = {}
    for parts in (1, 3):
        network, folder = copy.deepcopy(vit), tmp_path / str(parts)
        seen = LearningEvents(mode="online")
        notes = pretrain(
            network, clean[0], recipe(size), accumulate(engine, parts), augment=None, seed=1,
            loggers=[CSVLogger(folder, name="curves", version="")], recorders=[seen],
        )  # fmt: skip
        curves = (folder / "curves" / "metrics.csv").read_text().splitlines()
        loss = curves[0].split(",").index("train/loss")
        losses = [float(line.split(",")[loss]) for line in curves[1:]]
        results[parts] = network.state_dict(), seen.get_records(), notes["images_seen"], losses
    (state, records, images, losses), (state3, records3, images3, losses3) = results.values()
    assert max(float((state[k] - v).abs().max()) for k, v in vit.state_dict().items()) > 1e-2
    for key in state:
        torch.testing.assert_close(state3[key], state[key], atol=2e-5, rtol=1e-4, msg=key)
    for key in records:
        torch.testing.assert_close(records3[key], records[key], atol=1e-4, rtol=1e-3)
    assert images3 == images == 400
    assert losses3 == pytest.approx(losses, rel=1e-4)


def test_micro_batches_of_two_ranks_learn_what_one_process_learns(
    clean: tuple[ImageSet, ImageSet], vit: ViT, engine: Engine
):
    own = copy.deepcopy(vit)
    pretrain(own, clean[0], recipe(), engine, augment=None, seed=1)
    pretrain(vit, clean[0], recipe(), accumulate(engine, 3, devices=2), augment=None, seed=1)
    for key, value in own.state_dict().items():
        torch.testing.assert_close(vit.state_dict()[key], value, atol=2e-5, rtol=1e-4, msg=key)


def test_what_cannot_be_accumulated_is_refused(clean: tuple, vit: ViT, engine: Engine):
    three = accumulate(engine, 3)
    with pytest.raises(ValueError, match=r"batch_size must be at least 6 for trainer.accumulate=3"):
        pretrain(vit, clean[0], recipe(batch_size=5), three, augment=None, seed=1)
    with pytest.raises(ValueError, match=r"batch_size must be at least 12 for .*accumulate=3"):
        pretrain(vit, clean[0], recipe(batch_size=8), accumulate(engine, 3, devices=2), augment=None, seed=1)  # fmt: skip
    seen = LearningEvents(mode="online")
    seen.joins = False
    with pytest.raises(ValueError, match=r"needs whole batches: set trainer.accumulate=1"):
        pretrain(vit, clean[0], recipe(), three, augment=None, seed=1, recorders=[seen])


@pytest.mark.parametrize("parts", [1, 3])
def test_mixed_precision_computes_in_16_bits(task: Task, vit: ViT, engine: Engine, parts: int):
    mixed = accumulate(engine, parts, precision="bf16-mixed", unlearning_precision="bf16-mixed")
    layer = next(part for part in vit.modules() if isinstance(part, torch.nn.Linear))
    before, seen = layer.weight.detach().clone(), set[torch.dtype]()
    layer.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    pretrain(vit, task.train, recipe(), mixed, augment=None, seed=1)
    middle = layer.weight.detach().clone()
    assert seen == {torch.bfloat16} and not torch.equal(middle, before)
    optimizer = functools.partial(torch.optim.SGD, lr=0.05)
    method = Finetune(epochs=1, batch_size=35, optimizer=optimizer, schedule=Constant())
    vit.train()
    LightningFit(mixed, augment=None, seed=1)(method, vit, task.request())
    assert seen == {torch.bfloat16} and not torch.equal(layer.weight, middle)
    assert all(value.dtype == torch.float32 for value in vit.state_dict().values())
