"""Unlearning by two processes against one: difference of the result and time, for every method.

One process has as many threads as both together, at least one each. The network has no batch norm,
whose statistics depend on how a batch is split; batches of odd sizes have parts of different weights.
"""

import copy
import statistics
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
# A fixed stop and the last network: with an estimated one, or by score, the original is returned, since
# random labels are not worth unlearning.
REMOVAL = ("method.gamma=0.0", "method.select=last")
FORGET = ("method.epochs=2", "method.batch_size=5", *REMOVAL)
METHODS = {
    "finetune": SMALL, "rft": SMALL, "cf_k": SMALL, "eu_k": SMALL, "retrain": SMALL, "badt": SMALL,
    "l1_sparse": SMALL, "random_label": SMALL, "salun": SMALL, "del": SMALL,
    "gradient_ascent": FORGET, "npo": FORGET,
    "neggrad_plus": (*SMALL, "method.forget_batch_size=5", "method.stop=false"),
    "scrub": (*SMALL, "method.forget_batch_size=5"),
    "rem": (*SMALL, "method.removal_batch_size=5", "method.max_removal_epochs=1", *REMOVAL),
}  # fmt: skip
PLAN: Mapping[str, Any] = {"augment": None, "seed": 3, "title": "", "oracle": False}


COUNT, MANY = 200, 2000
"""Training images for the difference, and for the time."""


def table(rounds: int) -> Table:
    """Compare the two: the difference once, the times in turns in each round."""
    small, network = _make_task(COUNT)
    large, _ = _make_task(MANY, network)
    two = Engine(**{**vars(engine("32-true", 16)), "accelerator": "cpu", "devices": 2})
    alone, spread = _run_both(small, network, two)
    times = [_run_both(large, network, two) for _ in range(rounds)]
    rows = []
    for place, name in enumerate(METHODS):
        one, both = alone[place].predictions, spread[place].predictions
        assert one is not None and both is not None
        gap = (one.test - both.test).abs().max().item()
        flips = (one.test.argmax(1) != both.test.argmax(1)).sum().item()
        seconds = [(first[place].seconds, second[place].seconds) for first, second in times]
        ratios = [first / second for first, second in seconds]
        rows.append(
            [name, f"{gap:.1e}", str(flips), *(f"{min(s):.2f}" for s in zip(*seconds, strict=True)),
             f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        )  # fmt: skip
    columns = (
        "method", "largest difference of a logit", "test predictions that differ",
        "one process, s", "two processes, s", "faster",
    )  # fmt: skip
    note = (
        f"Differences: {COUNT} training images. Times: {MANY}, the shortest of {rounds} rounds; faster: median "
        f"of their ratios (least to largest). {torch.get_num_threads()} threads of one process."
    )
    return Table("unlearning by two processes (gloo, CPU)", columns, rows, note)


def _run_both(
    task: Task, network: nn.Module, how: Engine
) -> tuple[list[UnlearningResult], list[UnlearningResult]]:
    """Return the results of all methods by one process, and by two."""
    alone = [_run_alone(name, task, network, how) for name in METHODS]
    methods = [_make_method(name) for name in METHODS]
    spread: list[UnlearningResult] = run_distributed(
        run_rank, methods, network, task, how, count=2, backend="gloo",
        threads=torch.get_num_threads(),
    )  # fmt: skip
    return alone, spread


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


def _make_task(count: int, network: nn.Module | None = None) -> tuple[Task, nn.Module]:
    """Return a task of random images, and a network that has learned them, wrong labels as well."""
    data, test = images(count, 3, 16).to("cpu"), images(100, 3, 16, seed=1).to("cpu")
    bad = torch.zeros(count, dtype=torch.bool)
    bad[: count // 10] = True
    truth = Truth(clean_label=data.label, corrupted=bad)
    task = Task(data, test, truth, (torch.arange(count // 20),))
    if network is not None:
        return task, network
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
    return task, network.eval()
