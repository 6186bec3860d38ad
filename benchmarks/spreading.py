"""Unlearning by two processes against one: difference of the result and time, for every method.

One process has as many threads as both together. The network has no batch norm, whose statistics
depend on how a batch is split; batches of odd sizes have parts of different weights.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from benchmarks.measuring import Table, engine, images
from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.data.task import Task, Truth
from unlearn.evaluation.monitor import Monitor
from unlearn.evaluation.predictions import predict_task
from unlearn.models.vit import ViT
from unlearn.pipeline.run_method import UnlearningResult, run_timed
from unlearn.pipeline.spread_run import unlearn_as_rank
from unlearn.training.distributed import Rank, run_distributed
from unlearn.training.engine import Engine
from unlearn.training.unlearning import LightningFit

SMALL = ("method.epochs=2", "method.batch_size=35")
FORGET = ("method.epochs=2", "method.batch_size=5")
METHODS = {
    "finetune": SMALL, "rft": SMALL, "cf_k": SMALL, "eu_k": SMALL, "retrain": SMALL, "badt": SMALL,
    "l1_sparse": SMALL, "random_label": SMALL, "salun": SMALL, "del": SMALL,
    "gradient_ascent": FORGET, "npo": FORGET,
    "neggrad_plus": (*SMALL, "method.forget_batch_size=5", "method.stop=false"),
    "scrub": (*SMALL, "method.forget_batch_size=5"),
    "rem": (*SMALL, "method.removal_batch_size=5", "method.max_removal_epochs=1"),
}  # fmt: skip
PLAN: Mapping[str, Any] = {"augment": None, "seed": 3, "title": "", "oracle": False}


def table(rounds: int) -> Table:
    """Compare the two, once; ``rounds`` is not used."""
    task, network = _make_task()
    two = Engine(**{**vars(engine("32-true", 16)), "accelerator": "cpu", "devices": 2})
    alone = {name: _run_alone(name, task, network, two) for name in METHODS}
    methods = [_make_method(name) for name in METHODS]
    spread: list[UnlearningResult] = run_distributed(
        run_rank, methods, network, task, two, count=2, backend="gloo",
        threads=torch.get_num_threads(),
    )  # fmt: skip
    rows = []
    for (name, one), both in zip(alone.items(), spread, strict=True):
        assert one.predictions is not None and both.predictions is not None
        gap = (one.predictions.test - both.predictions.test).abs().max().item()
        flips = (one.predictions.test.argmax(1) != both.predictions.test.argmax(1)).sum().item()
        times = f"{one.seconds / both.seconds:.2f}"
        rows.append(
            [name, f"{gap:.1e}", str(flips), f"{one.seconds:.2f}", f"{both.seconds:.2f}", times]
        )
    columns = (
        "method", "largest difference of a logit", "test predictions that differ",
        "one process, s", "two processes, s", "faster",
    )  # fmt: skip
    return Table("unlearning by two processes (gloo, CPU)", columns, rows)


def run_rank(rank: Rank, methods: list[Any], network: nn.Module, task: Task, how: Engine) -> Any:
    """Run all methods as one of two ranks."""
    return [unlearn_as_rank(rank, method, network, task, how, PLAN) for method in methods]


def _run_alone(name: str, task: Task, network: nn.Module, how: Engine) -> UnlearningResult:
    method = _make_method(name)
    monitor = Monitor(method, task, [])
    fit = LightningFit(how, augment=None, seed=3, callbacks=[monitor])
    own = copy.deepcopy(network)
    result = run_timed(method, own, task.request(), monitor, fit, how)
    assert result.model is not None
    result.predictions = predict_task(result.model, task)
    return result


def _make_method(name: str) -> Any:
    with enable_composition([config_dir()]):
        words = ["dataset=synthetic", f"method={name}", *METHODS[name]]
        content = to_plain_config(compose_config("unlearn", words, [config_dir()]))
    return instantiate(content["method"], _convert_="all")


def _make_task() -> tuple[Task, nn.Module]:
    """Return a task of random images, and a network that has learned them, wrong labels as well."""
    data, test = images(200, 3, 16).to("cpu"), images(100, 3, 16, seed=1).to("cpu")
    torch.manual_seed(0)
    network = ViT(
        in_channels=3, image_size=16, num_classes=data.num_classes, width=64, depth=2, heads=2,
        head_width=32, mlp_width=128, patch_size=4,
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 0.003)
    for _ in range(60):
        (batch,) = data.batches(len(data))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch.image), batch.label).backward()
        optimizer.step()
    bad = torch.zeros(len(data), dtype=torch.bool)
    bad[:20] = True
    truth = Truth(clean_label=data.label, corrupted=bad)
    return Task(data, test, truth, (torch.arange(10),)), network.eval()
