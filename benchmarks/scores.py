"""How well scores without ground truth rank methods and settings, against the hidden truth.

    python -m benchmarks.scores --seed 11 dataset=digits

As in a tuning study, half of the list goes to the method and half is held out. Every run of RUNS is
scored and compared with healed x utility, which needs the truth. Per cell: rank correlation
(Spearman) over the runs, and regret, the truth of the best run minus that of the run with the best
score. score: that of gamma=auto, tuning and checkpoints; accuracies: retain accuracy x share of the
held-out samples that lost their listed label.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from scipy.stats import spearmanr

from benchmarks.tasks import CORRUPTIONS, load_task, make_job
from unlearn.core.errors import CollapsedError
from unlearn.evaluation.metrics import compute_headline
from unlearn.evaluation.predictions import predict_task
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.inference import compute_accuracy
from unlearn.orchestration.tuning.scored_tasks import HeldOutTask, make_held_out_task
from unlearn.pipeline.context import build_method
from unlearn.training.engine import silence_lightning
from unlearn.training.unlearning import LightningFit

RATES = (0.1, 0.5, 1.0)
RUNS: tuple[tuple[str, ...], ...] = (
    ("original",),
    ("finetune",),
    ("npo",),
    ("npo", "method.gamma=0.05"),
    ("npo", "method.gamma=0.4"),
    ("gradient_ascent",),
    ("neggrad_plus",),
    ("neggrad_plus", "method.beta=0.8"),
    ("potion",),
    ("potion", "method.rho=0.05"),
    ("ssd",),
    ("scrub",),
    ("badt",),
    ("salun",),
    ("rem",),
    ("rem", "method.removal_weight=share"),
    ("rem", "method.removal_batch_size=null", "method.removal_weight=share"),
    ("rem", "method.gamma=0.4"),
)


def run_cell(options: Sequence[str], seed: int, rate: float) -> pd.DataFrame:
    """Return truth and scores of every run on a cell."""
    context, original = load_task(make_job(options, seed=seed, discovery=rate))
    cell = make_held_out_task("", context, context.task, original, seed)
    rows = []
    for name, *changes in RUNS:
        job = make_job([*options, f"method={name}", *changes], seed=seed, discovery=rate)
        row = score_run(replace(cell, context=replace(context, job=job)))
        rows += [] if row is None else [{"run": " ".join((name, *changes)), **row}]
    return pd.DataFrame(rows)


def score_run(cell: HeldOutTask) -> dict[str, float] | None:
    """Return truth and scores of a run; None if its loss became NaN."""
    method = build_method(cell.context.job)
    fit = LightningFit(cell.context.engine, augment=cell.context.dataset.augment, seed=cell.seed)
    try:
        model = method.unlearn(copy.deepcopy(cell.model), cell.task.request(), fit)
    except CollapsedError:
        return None
    model = remove_extra_channels(model).eval()
    found = cell.score.measure(model)
    kept = compute_accuracy(model, cell.score.retain)
    lost = 1 - compute_accuracy(model, cell.score.listed)
    truth = compute_headline(predict_task(model, cell.task), cell.task, None)["healed_utility"]
    return {
        "truth": truth,
        "score": found.value,
        "accuracies": kept * lost,
        "kept": found.kept,
        "healed": found.healed,
    }


def compare_scores(runs: pd.DataFrame) -> dict[str, float]:
    """Return rank correlation and regret of each score on a cell."""
    truth: list[float] = runs["truth"].tolist()
    found = {"best": max(truth)}
    for name in ("score", "accuracies"):
        score: list[float] = runs[name].tolist()
        found[f"{name} rank"] = float(spearmanr(score, truth).statistic)  # type: ignore[attr-defined]
        found[f"{name} regret"] = max(truth) - truth[score.index(max(score))]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scores", description=__doc__)
    parser.add_argument("options", nargs="+", help="the task: dataset=digits ...")
    parser.add_argument("--seed", type=int, default=11)
    asked = parser.parse_args()
    rows = []
    with silence_lightning():
        for corruption in CORRUPTIONS:
            for rate in RATES:
                runs = run_cell([*asked.options, f"corruption={corruption}"], asked.seed, rate)
                rows.append({"corruption": corruption, "rate": rate, **compare_scores(runs)})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    print(table.groupby("corruption").mean(numeric_only=True).round(3).to_string())


if __name__ == "__main__":
    main()
