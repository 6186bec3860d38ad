"""Unlearning by two processes: what one process gives, for every method that declares so."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.data.task import Task
from unlearn.evaluation.monitor import Monitor
from unlearn.evaluation.predictions import predict_task
from unlearn.methods.base import UnlearningMethod
from unlearn.models.inference import compute_logits
from unlearn.models.vit import ViT
from unlearn.pipeline.run_method import run_timed
from unlearn.pipeline.spread_run import is_spread
from unlearn.training.distributed import run_distributed
from unlearn.training.engine import Engine
from unlearn.training.loggers import CurveRecorder
from unlearn.training.unlearning import LightningFit

CONF = Path(config_dir())
SMALL = ["method.epochs=2", "method.batch_size=35"]
METHODS = {
    "finetune": SMALL, "rft": SMALL, "cf_k": SMALL, "eu_k": SMALL, "retrain": SMALL, "badt": SMALL,
    "l1_sparse": SMALL, "random_label": [*SMALL, "method.mix=sequential"], "salun": SMALL,
    "del": [*SMALL, "method.optimizer.lr=0.01"], "gradient_ascent": ["method.epochs=2", "method.batch_size=5"],
    "npo": ["method.epochs=2", "method.batch_size=5"],
    "neggrad_plus": [*SMALL, "method.forget_batch_size=5", "method.stop=false"],
    "scrub": [*SMALL, "method.forget_batch_size=5"],
    "rem": [*SMALL, "method.removal_batch_size=5", "method.max_removal_epochs=1", "method.select=last"],
}  # fmt: skip
"""Batches of odd sizes: the parts of two processes have different weights. None has a last batch of
fewer than two images per process, which would be merged into the one before."""

CODE = """
from unlearn.pipeline.spread_run import unlearn_as_rank

def run(rank, methods, model, task, engine, plan):
    return [unlearn_as_rank(rank, method, model, task, engine, plan) for method in methods]
"""


def config(*words: str) -> dict[str, Any]:
    with enable_composition([config_dir()]):
        found = compose_config("unlearn", ["dataset=synthetic", *words], [config_dir()])
        return to_plain_config(found)


def make(name: str, *words: str) -> Any:
    return instantiate(config(f"method={name}", *words)["method"], _convert_="all")


@pytest.fixture
def trained(task: Task) -> nn.Module:
    """A network without batch norm: its result does not depend on how a batch is split."""
    torch.manual_seed(0)
    network = ViT(
        in_channels=1, image_size=12, num_classes=3, width=8, depth=1, heads=2, head_width=4,
        mlp_width=16, patch_size=4,
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):  # until part of the wrong labels is learned
        (batch,) = task.train.batches(len(task.train))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(batch.image), batch.label).backward()
        optimizer.step()
    return network.eval()


def run_alone(network: nn.Module, task: Task, engine: Engine) -> dict[str, tuple]:
    """Return result, predictions and curves of each method in this process."""
    alone = {}
    for name, words in METHODS.items():
        method, curves = make(name, *words), CurveRecorder()
        loggers: Any = [curves]
        monitor = Monitor(method, task, loggers)
        fit = LightningFit(engine, augment=None, seed=3, loggers=loggers, callbacks=[monitor])
        own = copy.deepcopy(network)
        result = run_timed(method, own, task.request(), monitor, fit, engine)
        alone[name] = result, predict_task(result.model, task), curves.values
    return alone


def test_micro_batches_give_the_row_of_whole_batches(
    trained: nn.Module, task: Task, engine: Engine
):
    whole = run_alone(trained, task, engine)
    cut = run_alone(trained, task, Engine(**{**vars(engine), "accumulate": 2}))
    for name, (one, said, curves) in whole.items():
        result, found, own = cut[name]
        for key in ("train", "test"):
            gap = (getattr(found, key) - getattr(said, key)).abs().max()
            assert gap < 2e-3, (name, key)
        assert result.images_seen == one.images_seen and result.notes.keys() == one.notes.keys()
        for (values, _), (expected, _) in zip(own, curves, strict=True):
            assert (
                values["train/loss"] == pytest.approx(expected["train/loss"], abs=1e-3)
                if ("train/loss" in expected)
                else values.keys() == expected.keys()
            ), name


def test_two_processes_give_the_row_of_one(
    trained: nn.Module, task: Task, engine: Engine, tmp_path: Path, monkeypatch
):
    plan = {"augment": None, "seed": 3, "title": "", "oracle": False}
    alone = run_alone(trained, task, engine)
    (tmp_path / "all_methods.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import all_methods  # type: ignore[import-not-found]

    methods = [make(name, *words) for name, words in METHODS.items()]
    two = copy.copy(engine)
    object.__setattr__(two, "devices", 2)
    spread = run_distributed(
        all_methods.run, methods, copy.deepcopy(trained), task, two, plan,
        count=2, backend="gloo", threads=2,
    )  # fmt: skip
    before = compute_logits(trained, task.train)
    assert len(spread) == len(METHODS)
    for name, result in zip(METHODS, spread, strict=True):
        one, said, curves = alone[name]
        assert (said.train - before).abs().max() > 1e-3, name
        for key in ("train", "test"):
            found, wanted = getattr(result.predictions, key), getattr(said, key)
            assert (found - wanted).abs().max() < 2e-3, (name, key)
        assert result.images_seen == one.images_seen, name
        assert result.notes.keys() == one.notes.keys(), name
        assert len(result.curves) == len(curves), name
        for (values, step), (expected, at) in zip(result.curves, curves, strict=True):
            assert step == at and values.keys() == expected.keys(), name
            for key in set(values) - {"seconds"}:
                assert values[key] == pytest.approx(expected[key], abs=1e-3), (name, key)


def job(*words: str) -> Job:
    content = config(*words)
    return Job(content, "", Path(), {}, functools.partial(instantiate, _convert_="all"))


def check(*words: str) -> bool:
    made = job(*words)
    return is_spread(made, made.node("method"))


@pytest.mark.parametrize("name", [p.stem for p in sorted((CONF / "method").glob("*.yaml"))])
def test_every_method_declares_whether_its_loss_is_a_mean(name: str):
    method = make(name)
    assert not check(f"method={name}")  # one device
    takes_steps = not isinstance(method, UnlearningMethod) or method.epochs > 0
    if takes_steps and name not in (*METHODS, "rum", "auto"):
        with pytest.raises(
            ValueError, match="its loss is not declared to be a mean over each batch"
        ):
            check(f"method={name}", "trainer=ddp")
        return
    assert check(f"method={name}", "trainer=ddp") == takes_steps


def test_what_cannot_be_cut_into_micro_batches_is_refused():
    assert not check("method=npo", "trainer.accumulate=2", "method.batch_size=4")
    with pytest.raises(
        ValueError,
        match=r"^method=npo cannot run on trainer.accumulate=3: each part needs two images of a batch, of 5 there are too few; set trainer.accumulate=1$",
    ):
        check("method=npo", "trainer.accumulate=3", "method.batch_size=5")
    with pytest.raises(
        ValueError, match=r"^method=ft_sam .*not declared to be a mean over each batch"
    ):
        check("method=ft_sam", "trainer.accumulate=2")
    ids = [compute_run_id(config("method=npo", f"trainer.accumulate={n}")) for n in (1, 2)]
    plain = config("method=npo")
    assert plain["trainer"].pop("accumulate") == 1
    assert compute_run_id(plain) == ids[0] != ids[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["method=salun", "method.form=input_saliency"], "form=input_saliency averages over"),
        (["method=rem", "method.removal_batch_size=null", "method.removal_weight=mean"], "removal_weight=mean averages"),
        (["method=rum", "method@method.base=salun", "method.base.form=input_saliency", "method.mode=vanilla"], "SalUn: form=input_s"),
        (["method=npo", "method.batch_size=3"], "each part needs two images of a batch, of 3"),
        (["method=rft", "localization=salloc", "budget=0.3", "method.batch_size=1"], "each part needs two"),
    ],
)  # fmt: skip
def test_what_cannot_be_spread_is_refused(words: list[str], why: str):
    if "localization=salloc" in words:
        from unlearn.pipeline.context import build_method

        made = job(*words, "trainer=ddp")
        with pytest.raises(ValueError, match=why):
            is_spread(made, build_method(made))
        return
    with pytest.raises(ValueError, match=rf"cannot run on trainer.devices=2: .*{why}.*devices=1$"):
        check(*words, "trainer=ddp")


def test_a_method_that_declares_nothing_is_refused():
    class Own(UnlearningMethod):
        def loss(self, forward: Any, batch: Any) -> Any: ...

    own = Own(epochs=1, batch_size=8, optimizer=torch.optim.SGD, schedule=lambda s, t: 1.0)
    with pytest.raises(ValueError, match="not declared to be a mean over each batch"):
        is_spread(job("method=npo", "trainer=ddp"), own)
