"""Choose a method's hyper-parameters from what an unlearner may see; the same budget for each method.

The forget set of each cell is split: one half is handed to the method, the other half stays in the
retain set with its corrupted labels and plays the hidden part. A setting's score is
accuracy on the rest of the retain set * (1 - accuracy on the held-out half's given labels), averaged
over three corruptions x three discovery rates on a seed that no result uses. No true label, no hidden
sample and no test image enters.

    python -m benchmarks.tune rem --trials 24 dataset=digits
"""

import argparse
import copy
import json
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from unlearn.compose import composed, composing
from unlearn.config import config_dir, plain, run_id
from unlearn.job import Job
from unlearn.models.expansion import drop
from unlearn.models.predict import accuracy
from unlearn.setting import original, prepare
from unlearn.training.engine import CollapsedError
from unlearn.training.unlearning import LightningFit

SEED = 100
CELLS = [
    (c, d) for c in ("random_label", "interclass_confusion", "poison") for d in (0.1, 0.5, 1.0)
]
LINEAR = {
    "_target_": "unlearn.training.schedules.WarmupLinear",
    "warmup_fraction": 0.2,
    "stretch": 0.8,
}
NORMALIZED = {
    "_target_": "unlearn.training.optimizers.NormalizedSGD",
    "_partial_": True,
    "momentum": 0.0,
    "weight_decay": 0.0,
}
SGD = {"_target_": "torch.optim.SGD", "_partial_": True}


def loguniform(rng: random.Random, low: float, high: float) -> float:
    """Return a number between low and high, uniform in its logarithm, two digits."""
    return float(f"{low * (high / low) ** rng.random():.2g}")


def ascent(rng: random.Random) -> dict[str, Any]:
    """Return a setting of what gradient ascent and NPO share."""
    if rng.random() < 0.5:
        optimizer = NORMALIZED | {"lr": loguniform(rng, 0.003, 0.1)}
    else:
        lr, momentum = loguniform(rng, 0.0005, 0.05), rng.choice([0.0, 0.9])
        optimizer = SGD | {"lr": lr, "momentum": momentum, "weight_decay": 0.0005}
    return {
        "optimizer": optimizer,
        "epochs": 100,
        "batch_size": rng.choice([16, 64, 512]),
        "gamma": rng.choice([0.05, 0.1, 0.2, 0.4]),
        "select": rng.choice(["proxy", "last"]),
        "batch_norm": rng.choice(["train", "eval"]),
    }


def finetune(rng: random.Random) -> dict[str, Any]:
    """Return a setting of fine-tuning."""
    return {
        "optimizer": {
            "lr": loguniform(rng, 0.005, 0.8),
            "weight_decay": rng.choice([0.0, 0.0005, 0.005]),
        },
        "schedule": rng.choice([LINEAR, {}]),
        "epochs": rng.choice([3, 5, 10, 15]),
        "batch_size": rng.choice([32, 64, 128]),
    }


def rem(rng: random.Random) -> dict[str, Any]:
    """Return a setting of REM."""
    return {
        "optimizer": {"lr": loguniform(rng, 0.02, 0.4)},
        "schedule": rng.choice([LINEAR, {}]),
        "removal_optimizer": NORMALIZED | {"lr": loguniform(rng, 0.005, 0.05)},
        "epochs": rng.choice([3, 5, 8]),
        "batch_size": rng.choice([64, 128]),
        "gamma": rng.choice([0.1, 0.15, 0.2]),
        "density": rng.choice([0.2, 0.35, 0.5]),
        "removal_batch_size": rng.choice([None, 16, 32, 64]),
        "redirect_loss": rng.choice(["logsig", "ce"]),
        "removal_batch_norm": rng.choice(["train", "eval"]),
        "batch_norm": rng.choice(["recalibrate", "recalibrate", "shared"]),
        "select": rng.choice(["proxy", "last"]),
    }


def npo(rng: random.Random) -> dict[str, Any]:
    """Return a setting of NPO."""
    return {"beta": rng.choice([0.1, 0.5, 1.0, 3.0])} | ascent(rng)


SPACES = {"gradient_ascent": ascent, "npo": npo, "finetune": finetune, "rem": rem}


def merge(node: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config node with some values changed; a new ``_target_`` replaces the whole node."""
    out = dict(node)
    for key, value in change.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        same = nested and value.get("_target_", out[key].get("_target_")) == out[key].get(
            "_target_"
        )
        out[key] = merge(out[key], value) if nested and same else copy.deepcopy(value)
    return out


def job_of(method: str, corruption: str, discovery: float, overrides: list[str]) -> Job:
    """Return a job without hydra's main."""
    choices = [f"method={method}", f"corruption={corruption}", f"discovery={discovery}"]
    with composing([config_dir()]):
        config = composed(
            "unlearn", [*choices, f"seed={SEED}", "trainer.progress=false", *overrides], []
        )
        content, who = plain(config), run_id(config)
    return Job(content, who, Path("."), content["names"], lambda n: instantiate(n, _convert_="all"))


class Cell:
    """One task whose forget set is split; the original model is trained once."""

    def __init__(
        self, method: str, corruption: str, discovery: float, overrides: list[str]
    ) -> None:
        """Prepare data and original model."""
        self.job = job_of(method, corruption, discovery, overrides)
        setting = prepare(self.job, forget=True)
        self.model = original(self.job, setting)[0]
        found = setting.task.discovered()
        shuffled = found[torch.randperm(len(found), generator=torch.Generator().manual_seed(SEED))]
        half = len(found) // 2
        self.held = setting.task.train.rows(shuffled[half:].sort().values)
        self.rest = setting.task.train.rows(setting.task.believed_clean())
        self.task = replace(setting.task, forget=(shuffled[:half].sort().values,))
        self.setting = setting

    def score(self, change: Mapping[str, Any]) -> tuple[float, float, float]:
        """Return score, accuracy on the rest, and given accuracy on the held-out half."""
        method = self.job.build(merge(self.job.config["method"], change))
        fit = LightningFit(self.setting.engine, augment=self.setting.dataset.augment, seed=SEED)
        try:
            model = method.unlearn(copy.deepcopy(self.model), self.task.request(), fit)
        except CollapsedError:
            return 0.0, 0.0, 1.0
        model = drop(model).eval()
        keep, known = accuracy(model, self.rest), accuracy(model, self.held)
        return keep * (1 - known), keep, known


def main() -> None:
    """Search at random and write every trial, best first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("method", choices=sorted(SPACES))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("outputs/tuning"))
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    cells = [Cell(arguments.method, c, d, arguments.overrides) for c, d in CELLS]
    rng = random.Random(SEED)
    trials: list[dict[str, Any]] = []
    path = arguments.out / f"{arguments.method}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.trials):
        change = SPACES[arguments.method](rng)
        started = time.perf_counter()
        scores = [cell.score(change) for cell in cells]
        mean = sum(s for s, _, _ in scores) / len(scores)
        seconds = time.perf_counter() - started
        trials.append({"score": mean, "seconds": seconds, "change": change, "cells": scores})
        trials.sort(key=lambda t: -t["score"])
        path.write_text(json.dumps(trials, indent=1))
        best = trials[0]["score"]
        sys.stderr.write(
            f"{arguments.method} trial {number + 1}/{arguments.trials}: {mean:.3f} "
            f"(best {best:.3f}) in {seconds:.0f} s\n"
        )


if __name__ == "__main__":
    main()
