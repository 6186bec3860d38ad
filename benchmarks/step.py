"""Images per second of pre-training and of each method's step against a bare PyTorch loop.

Same in-memory images, network, precision, batch size, loss and optimizer; the loop has no trainer,
no logger and no checks. Pre-training is timed as a whole; of a method, what lies between the start
of an epoch and the end of its last step. Shapes: B batch.
"""

import copy
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from benchmarks.hand import hand
from benchmarks.measuring import (
    CROP,
    DEVICE,
    MEAN,
    ON_GPU,
    STD,
    Stopwatch,
    Table,
    alternate,
    engine,
    fast_precision,
    images,
    network,
    ratio,
    timed,
)
from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.types import ImageSet, Request
from unlearn.data.datasets.augmentation import Augment
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import WarmupLinear
from unlearn.training.unlearning import LightningFit

WIDTH = 64 if ON_GPU else 16
CASES: list[tuple[str, int, int, int, int, int, int, str]] = [
    # name, images, channels, size, width, batch, epochs, precision
    ("digits recipe", 1297, 1, 12, 8, 64, 4, "32-true"),
    (f"ResNet-9 width {WIDTH}, 32 px", 32768 if ON_GPU else 1024, 3, 32, WIDTH, 256, 1, "32-true"),
    (f"ResNet-9 width {WIDTH}, 32 px", 32768 if ON_GPU else 1024, 3, 32, WIDTH, 256, 2, "fast"),
]
METHODS = [
    "finetune", "retrain", "l1_sparse", "cf_k", "eu_k", "gradient_ascent", "npo", "neggrad_plus",
    "scrub", "badt", "random_label", "salun", "rem",
]  # fmt: skip
OPTIONS = {
    "gradient_ascent": ["method.gamma=0.0", "method.select=last"],
    "npo": ["method.gamma=0.0", "method.select=last"],
    "neggrad_plus": ["method.stop=false"],
    "rem": ["method.max_removal_epochs=0", "method.select=last"],
}
SAMPLES, BATCH = (32768, 512) if ON_GPU else (512, 64)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """Return the benchmark's optimizer."""
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=5e-4)


def bare_batches(data: ImageSet, size: int, augment: Augment) -> Iterator[tuple[Tensor, ...]]:
    """Yield image, label and index of one pass, as one would write it by hand."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    mean, std = torch.tensor(MEAN, device=DEVICE), torch.tensor(STD, device=DEVICE)
    order = torch.randperm(len(data), generator=generator, device=DEVICE)
    for rows in order.split(size):
        if len(rows) < 2:
            continue
        image = augment(data.image[rows], generator).float().div(255).sub(mean).div(std)
        yield image, data.label[rows], data.index[rows]


def bare(
    model: nn.Module, data: ImageSet, recipe: Pretraining, augment: Augment, fast: bool
) -> None:
    """Train as one would by hand."""
    model.to(DEVICE, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = recipe.optimizer(model.parameters())
    steps = recipe.epochs * -(-len(data) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.schedule(step, steps)
    )
    for _ in range(recipe.epochs):
        for image, label, _index in bare_batches(data, recipe.batch_size, augment):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=fast):
                loss = nn.functional.cross_entropy(model(image), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def pretraining(rounds: int) -> Table:
    """Compare pre-training with the bare loop."""
    rows = [compare(case, rounds) for case in CASES]
    columns = ("pre-training", "precision", "unlearn, images/s", "bare loop, images/s", "ratio")
    return Table("(a) pre-training against a bare loop", columns, rows, "Target: 0.95.")


def compare(case: tuple[str, int, int, int, int, int, int, str], rounds: int) -> list[str]:
    """Return one row: name, precision, both speeds and their ratio."""
    name, count, channels, size, width, batch, epochs, precision = case
    precision = fast_precision() if precision == "fast" else precision
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if size < 32 else threads)  # as the digits recipe
    data = images(count, channels, size)
    augment = CROP if size == 32 else Augment(crop_padding=0, flip_rate=0, cutout=0)
    recipe = Pretraining(
        epochs=epochs, batch_size=batch, optimizer=sgd, capacity=1.0, density=0.0,
        schedule=WarmupLinear(warmup_fraction=0.1, stretch=1.0),
    )  # fmt: skip

    def ours() -> float:
        net, how = network(width, channels, size), engine(precision, size)
        return timed(lambda: pretrain(net, data, recipe, how, augment=augment, seed=0))

    def theirs() -> float:
        net = network(width, channels, size)
        return timed(lambda: bare(net, data, recipe, augment, precision == "bf16-mixed"))

    found = alternate({"ours": ours, "bare": theirs}, rounds)
    torch.set_num_threads(threads)
    seen = epochs * count
    speeds = [f"{seen / sorted(found[s])[rounds // 2]:,.0f}" for s in ("ours", "bare")]
    return [name, precision, *speeds, f"{ratio(found['bare'], found['ours']):.2f}"]


def methods(rounds: int) -> Table:
    """Compare each method's step with the bare loop."""
    data = images(SAMPLES, 3, 32)
    half = torch.arange(SAMPLES, device=DEVICE) < SAMPLES // 2
    request = Request(forget=data.rows(half), retain=data.rows(~half))
    wanted = [m for m in METHODS if m in os.environ.get("METHODS", ",".join(METHODS)).split(",")]
    rows = [method_row(name, request, rounds) for name in wanted]
    columns = ("method's step", "precision", "unlearn, images/s", "bare loop, images/s", "ratio")
    note = f"ResNet-9 width {WIDTH}, 32 px, batch {BATCH}. Target: 0.90."
    return Table("(a) each method's step against a bare loop", columns, rows, note)


def made(name: str) -> Any:
    """Return a method as configured for CIFAR-10, with one short epoch."""
    options = ["dataset=cifar10", f"method={name}", f"method.batch_size={BATCH}"]
    with enable_composition([config_dir()]):
        options += ["method.epochs=1", *OPTIONS.get(name, [])]
        node = to_plain_config(compose_config("unlearn", options, [config_dir()]))["method"]
    return instantiate(node, _convert_="all")


def method_row(name: str, request: Request, rounds: int) -> list[str]:
    """Return one row: name, precision, both speeds and their ratio."""
    how, origin = engine("auto"), engine("auto").place_model(network(WIDTH))
    seen: dict[str, int] = {}
    precision = how.unlearning_precision if made(name).full_precision else fast_precision()

    def ours() -> float:
        watch = Stopwatch()
        fit = LightningFit(how, augment=CROP, seed=0, callbacks=[watch])
        made(name).unlearn(copy.deepcopy(origin), request, fit)
        seen["ours"] = fit.images_seen
        return watch.seconds

    def theirs() -> float:
        run, seen["bare"] = by_hand(name, copy.deepcopy(origin), request, precision == "bf16-mixed")
        return timed(run)

    found = alternate({"ours": ours, "bare": theirs}, rounds, warm=ON_GPU)
    speeds = {s: [seen[s] / t for t in found[s]] for s in found}
    shown = [f"{sorted(speeds[s])[rounds // 2]:,.0f}" for s in ("ours", "bare")]
    return [name, precision, *shown, f"{ratio(speeds['ours'], speeds['bare']):.2f}"]


def by_hand(
    name: str, model: nn.Module, request: Request, fast: bool
) -> tuple[Callable[[], None], int]:
    """Return one epoch of a method as a bare loop, and the images that it takes."""
    method = made(name)
    place = engine("auto").place_model
    model = place(method.prepare(model, request)).train()
    for consulted in method.get_loss_modules().values():
        place(consulted)
    optimizer = method.build_optimizers(model)[0]
    loss, after = hand(name, method, model)
    parts = {"forget": request.forget, "retain": request.retain, "all": request.get_all_samples()}
    used = [part for part in method.uses(0) if part in parts]
    sizes = method.batch_sizes()
    passes = {p: partial(bare_batches, parts[p], sizes[p], CROP) for p in used}

    def run() -> None:
        for found in zip(*(make() for make in passes.values()), strict=False):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=fast):
                value = loss(dict(zip(used, found, strict=True)))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            after()

    return run, sum(len(parts[p]) for p in used)
