"""Whether method=auto says the truth about bad samples that nobody found, on simulated tasks.

    python -m benchmarks.calibration --seeds 11,12 --rates 0.3,0.5,0.7 dataset=digits

Each cell (corruption x rate x seed) is run by unlearn.py if its row is not recorded yet, in this
process. Per cell: the chosen method, the stated share of healed hidden samples with its 90 % interval,
and the true one; whether the interval holds it; and how many of the first images of found_next.csv are
bad. The seeds must not be those of results. The last lines hold the shares over all cells.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks.tasks import CORRUPTIONS, load_task, make_job
from unlearn.core.job import Job
from unlearn.evaluation.found_next import find_suspects
from unlearn.models.inference import compute_logits
from unlearn.pipeline.healed_models import load_folder
from unlearn.training.engine import silence_lightning

FIRST = 20
"""Images of found_next.csv that are looked at."""


def run_cells(options: Sequence[str], seeds: str, rates: str) -> None:
    """Run the cells that are missing."""
    words = [*options, "method=auto", f"corruption={','.join(CORRUPTIONS)}", f"discovery={rates}"]
    command = [sys.executable, "unlearn.py", "--multirun", *words, f"seed={seeds}"]
    subprocess.run(command, check=True)


def measure_cell(options: Sequence[str], corruption: str, rate: float, seed: int) -> dict[str, Any]:
    """Return what the row of a cell states, the truth, and the yield of the next images."""
    words = [*options, "method=auto", f"corruption={corruption}"]
    job = make_job(words, seed=seed, discovery=rate)
    row: dict[str, Any] = json.loads((job.folder / "row-0.json").read_text())
    low, high, true = (
        row.get(k) for k in ("auto/healed_low", "auto/healed_high", "hidden/accuracy_true")
    )
    found: dict[str, Any] = {"corruption": corruption, "rate": rate, "seed": seed}
    found |= {"method": row["auto/method"], "stated": row.get("auto/healed"), "low": low}
    found |= {"high": high, "true": true, "product": row["healed_utility"]}
    found["cost"] = row.get("auto/cost", 0.0) + row.get("auto/heal_cost", 0.0)
    if low is None or high is None or true is None:
        found["inside"] = None
    else:
        found["inside"] = bool(low <= true <= high)
    return found | measure_yield(job)


def measure_yield(job: Job) -> dict[str, Any]:
    """Return the share of bad images among the first ``FIRST`` of the next ones, and their number."""
    saved = job.folder / "model.pt"
    if not saved.exists():
        return {}
    context, _ = load_task(job)
    network = context.engine.place_model(load_folder(job.folder, ())).eval()
    logits = compute_logits(network, context.task.train)
    rows = [one.row for one in find_suspects(logits, context.task)][:FIRST]
    bad = context.task.truth.corrupted[rows].sum().item() if rows else 0
    hidden = int(context.task.truth.corrupted.sum()) - len(context.task.forget_indices())
    return {"next": len(rows), "next_bad": bad, "hidden": hidden}


def summarize(cells: pd.DataFrame) -> str:
    """Return the shares over all cells."""
    known = cells.dropna(subset=["inside"])
    text = (
        f"{len(known)} cells with a stated interval; the truth lies inside in "
        f"{known['inside'].astype(bool).mean():.0%}; mean error {(known['stated'] - known['true']).mean():+.3f}; "
        f"mean width {(known['high'] - known['low']).mean():.2f}; cost {cells['cost'].mean():.2f} retrainings"
    )
    if "next" in cells and cells["next"].sum():
        text += f"\n{cells['next_bad'].sum() / cells['next'].sum():.0%} of the first images of found_next.csv are bad"
    return text


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("options", nargs="+", help="the task: dataset=digits ...")
    parser.add_argument("--seeds", default="11,12")
    parser.add_argument("--rates", default="0.3,0.5,0.7")
    parser.add_argument("--recorded", action="store_true", help="only cells with a row")
    asked = parser.parse_args()
    if not asked.recorded:
        run_cells(asked.options, asked.seeds, asked.rates)
    rows = []
    with silence_lightning():
        for corruption in CORRUPTIONS:
            for rate in map(float, asked.rates.split(",")):
                for seed in map(int, asked.seeds.split(",")):
                    try:
                        rows.append(measure_cell(asked.options, corruption, rate, seed))
                    except FileNotFoundError:
                        if not asked.recorded:
                            raise
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    print(summarize(table))


if __name__ == "__main__":
    main()
