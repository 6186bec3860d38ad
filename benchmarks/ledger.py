"""The ledger of published claims: which hold at which scale, from recorded rows.

    python -m benchmarks.ledger                                    # writes docs/claims.md
    python -m benchmarks.ledger add NAME RESULTS                   # keeps rows for it, from a results folder
    python -m benchmarks.ledger add NAME reports/scores.csv        # or from a comparison of scores

``claims/claims.yaml`` holds the claims in words, what each expects of rows, and the sources of each
scale. Nothing is run.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from scipy import stats

from unlearn.core.files import write_text_atomically
from unlearn.reporting.figures.catalog import curve_end
from unlearn.reporting.tables.advice import load_shipped_plane
from unlearn.reporting.tables.claims import Claim, measure_claim, parse_claims, select_rows
from unlearn.reporting.tables.frames import TASK, existing_columns, label_pretraining, spread_rates
from unlearn.reporting.tables.memorized import MEMORIZED, NOTHING, has_nothing
from unlearn.storage.results_store import ResultsStore

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / "claims"
PAGE = ROOT / "docs" / "claims.md"
SHIPPED = "plane_digits.csv"
FACTS = ("method", "status", "role", "uses_forget_set", "seed", "step", "score", "revision", *TASK)
HOLDS, FAILS, UNMEASURED = "holds", "does not hold", "–"
HEAD = """# Published claims

Each claim of the publications that this project reproduces, and whether it holds in the rows that were recorded, scale by
scale. *holds* and *does not hold* compare means over cells with the expectation; the effect is the mean, or the difference
between two methods on the same cells, with its 95 % interval over cells (without one, there is a single cell); if a claim
expects several, the one with the least margin is shown. *nothing to unlearn*: the original memorized less than 0.3 of the
corruption in all cells of the claim ([glossary](glossary.md#is-there-anything-to-unlearn)). A dash: unmeasured. The column
*full recipe* names the command that runs the published recipe on a GPU; none of them has been run here.

This page is written by `python -m benchmarks.ledger` from `benchmarks/claims/`; it runs nothing.
"""


def read_ledger() -> dict[str, Any]:
    """Return the claims and the sources of every scale."""
    return yaml.safe_load((FOLDER / "claims.yaml").read_text(encoding="utf-8"))


def read_source(name: str) -> pd.DataFrame:
    """Return the rows of a source, prepared for claims."""
    if name == SHIPPED:
        return load_shipped_plane().assign(status="ok", seed="mean of 3")
    return pd.read_csv(FOLDER / name)


def measure_cell(claim: Mapping[str, Any], sources: Sequence[pd.DataFrame]) -> str:
    """Return the cell of a claim at a scale: verdict and effect, by the first source that knows it."""
    nodes = [each for node in claim["expected"] for each in parse_claims(_complete(node, claim))]
    for frame in sources:
        found = [_measure(frame, node) for node in nodes]
        known = [one for one in found if one["verdict"] != "missing"]
        if len(known) == len(found):
            worst = min(known, key=lambda one: one["slack"])
            verdict = HOLDS if all(one["verdict"] == "inside" for one in known) else FAILS
            return f"{verdict}: {_format_effect(worst)}"
        if _is_left_out(frame, nodes):
            return NOTHING
    return UNMEASURED


def _complete(node: Mapping[str, Any], claim: Mapping[str, Any]) -> dict[str, Any]:
    return {"source": claim["source"], **node}


def _measure(frame: pd.DataFrame, claim: Claim) -> dict[str, Any]:
    """Return the measurement of a claim with its margin: negative if it is outside."""
    row = measure_claim(frame[~has_nothing(frame)], claim)
    mean = row["measured"]
    margins = [] if claim.value is None else [claim.tolerance - abs(mean - claim.value)]
    margins += [] if claim.at_least is None else [mean - claim.at_least]
    margins += [] if claim.at_most is None else [claim.at_most - mean]
    return row | {"slack": min(margins)}


def _is_left_out(frame: pd.DataFrame, nodes: Sequence[Claim]) -> bool:
    """Return whether all rows that claims speak of have nothing to unlearn."""
    if MEMORIZED not in frame:
        return False
    parts = [select_rows(frame, {**node.where, "method": node.method}) for node in nodes]
    return all(len(part) and has_nothing(part).all() for part in parts)


def _format_effect(row: Mapping[str, Any]) -> str:
    n, error = row["n"], row["measured_sem"]
    text = f"{row['measured']:.3g}"
    if n > 1 and not math.isnan(error):
        text += f" ± {stats.t.ppf(0.975, n - 1) * error:.2g}"
    return f"{text} ({n})"


def write_page() -> str:
    """Return the page as Markdown."""
    ledger = read_ledger()
    scales = ledger["scales"]
    frames = {
        key: [read_source(one["rows"]) for one in scale["sources"]] for key, scale in scales.items()
    }
    lines = [HEAD]
    titles = [scale["title"] for scale in scales.values()]
    for paper, title in ledger["papers"].items():
        lines += [f"## {title} (arXiv {paper})", ""]
        lines += [f"| claim | {' | '.join(titles)} | full recipe |"]
        lines += ["| --- |" + " --- |" * (len(titles) + 1)]
        for claim in (one for one in ledger["claims"] if paper in str(one["source"])):
            cells = [measure_cell(claim, frames[key]) for key in scales]
            full = f"unmeasured: `{claim['experiment']}`" if claim.get("experiment") else UNMEASURED
            lines.append(f"| {claim['claim']} | {' | '.join(cells)} | {full} |")
        lines.append("")
    lines += ["## Sources", "", *_describe_sources(scales, frames)]
    lines += ["", "In brackets: number of cells. Full recipes: experiments of `evaluate.py`, "
              "such as `experiment=reproduce_rem_table`; with `plan=true` the cost, with `scale=small` a variant for two CPU cores."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _describe_sources(
    scales: Mapping[str, Any], frames: Mapping[str, Sequence[pd.DataFrame]]
) -> list[str]:
    lines = ["| scale | rows | seeds | revision | command |", "| --- | --: | --- | --- | --- |"]
    for key, scale in scales.items():
        if not scale["sources"]:
            lines.append(f"| {scale['title']} | 0 | – | – | unmeasured: `{scale['command']}` |")
        for source, frame in zip(scale["sources"], frames[key], strict=True):
            seeds = ", ".join(
                sorted({f"{s:g}" if isinstance(s, float) else str(s) for s in frame["seed"]})
            )
            known = frame["revision"].dropna().astype(str) if "revision" in frame else pd.Series()
            found = ", ".join(sorted({text[:8] for text in known})) or "–"
            lines.append(
                f"| {scale['title']} | {len(frame)} | {seeds} | {found} | `{source['command']}` |"
            )
    return lines


def keep_rows(name: str, place: Path) -> Path:
    """Keep what the claims need of recorded rows as a table of the ledger; return its path.

    Args:
        name: Name of the table.
        place: A results folder, or a table of compared scores.
    """
    path = FOLDER / f"{name}.csv"
    frame = _read_scores(place) if place.is_file() else _read_rows(place)
    frame.to_csv(path, index=False, float_format="%.5g", lineterminator="\n")
    return path


def _read_scores(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path).rename(columns={"score": "method"})
    return table.assign(seed=0, status="ok")


def _read_rows(folder: Path) -> pd.DataFrame:
    store = ResultsStore(folder)
    frame = spread_rates(label_pretraining(store.load()))
    columns = list_columns(read_ledger())
    for column in (c for c in columns if c.startswith("curve/")):
        curve, _, end = column.removeprefix("curve/").rpartition("/")
        ends = {i: curve_end(store, str(i), curve, end) for i in set(frame["run_id"])}
        frame[column] = frame["run_id"].map(ends)
    kept = frame[existing_columns(frame, tuple(dict.fromkeys((*FACTS, *columns, MEMORIZED))))]
    order = existing_columns(kept, ("method", "corruption", "discovery", "seed", "step"))
    return kept.dropna(axis=1, how="all").sort_values(order, ignore_index=True, kind="stable")


def list_columns(ledger: Mapping[str, Any]) -> list[str]:
    """Return the columns of rows that the claims speak of."""
    found: dict[str, None] = {}
    for claim in ledger["claims"]:
        for node in claim["expected"]:
            places = {**node.get("where", {}), **node.get("minus", {})}
            found |= dict.fromkeys([node["column"], *(key for key in places if key != "method")])
    return list(found)


def main() -> None:
    """Write the page, or keep rows for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("words", nargs="*", help="nothing, or: add NAME RESULTS")
    words = parser.parse_args().words
    if not words:
        write_text_atomically(PAGE, write_page())
        print(PAGE)
    elif len(words) == 3 and words[0] == "add" and Path(words[2]).exists():
        print(keep_rows(words[1], Path(words[2])))
    else:
        parser.error(f"nothing, or: add NAME RESULTS, an existing folder; got {' '.join(words)}")


if __name__ == "__main__":
    main()
