"""The interactive report: one HTML file with data, style and script.

It opens as a file, without a server and without network access. The content is drawn in the
browser from one JSON object; the page's parts are in the folder ``results/``.
"""

import base64
import hashlib
import json
import logging
import os
import pkgutil
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import pandas as pd

from unlearn.core.files import write_text_atomically
from unlearn.core.recovery_columns import RECOVERED
from unlearn.evaluation.recovery import DIRECTIONS
from unlearn.reporting.pages.run_folders import (
    FILES,
    NAMES,
    list_broken_runs,
    read_command,
    read_curves,
    shorten_value,
)
from unlearn.reporting.tables.definitions import define_column
from unlearn.reporting.tables.facts import (
    UPPER_BOUND,
    labels_of_role,
    order_corruptions,
    regularity_levels,
)
from unlearn.reporting.tables.frames import (
    TASK,
    existing_columns,
    label_pretraining,
    spread_rates,
)
from unlearn.reporting.tables.memorized import LEAST
from unlearn.reporting.tables.summary import HEADLINE, TITLES, summarize_metrics
from unlearn.reporting.tables.trusted import is_trusted
from unlearn.storage.record import OWN, to_json_value
from unlearn.storage.results_store import ResultsStore

log = logging.getLogger(__name__)

LABEL = "report/source"
SHOWN_ELSEWHERE = ("config/seed", "config/discovery", "config/force", "config/save_model")
UNBOUNDED = ("seconds", "bytes", "images_seen")  # suffixes of columns that are not fractions


def write_report(store: ResultsStore, frame: pd.DataFrame, path: Path) -> Path:
    """Write the interactive report.

    Args:
        store: Store of the runs; curves, commands and links are read from its folders.
        frame: Rows to show, prepared or not.
        path: The HTML file; replaced if it exists.

    Returns:
        The path.

    Raises:
        ValueError: If there are no rows or a column is absent.
    """
    write_text_atomically(path, format_page(collect_content(store, frame, path.parent)))
    return path


def format_page(data: Mapping[str, Any]) -> str:
    """Return the HTML text; the data is escaped so that it cannot end its element."""
    folder = resources.files("unlearn.reporting.pages") / "results"
    html, style, *scripts = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "maps.js", "runs.js", "page.js")
    )
    script = "\n".join(scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Template(html).substitute(digest=digest, style=style, data=text, script=script)


def collect_content(store: ResultsStore, frame: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Return the content of the page as JSON values.

    Args:
        store: Where the runs are.
        frame: Rows to show.
        folder: Folder of the page; links are relative to it.
    """
    lost = list_broken_runs(store)
    rows = _unique_runs(label_pretraining(frame))
    rows = _with_broken(rows, [run["row"] for run in lost if run["row"]])
    methods = [
        str(m) for m in summarize_metrics(rows, metrics=existing_columns(rows, HEADLINE))["method"]
    ]
    rows = rows.assign(**{LABEL: _name_sources(rows)})
    metrics = _list_metrics(rows)
    bounds, levels = labels_of_role(rows, UPPER_BOUND), regularity_levels(rows)
    unranked = bounds | {str(m) for m in rows.loc[is_trusted(rows), "method"]}
    lists = {
        "methods": sorted(
            methods, key=lambda m: (m in bounds, m in unranked)
        ),  # upper bounds and methods with a trusted set are not ranked
        "corruptions": order_corruptions(sorted(rows["corruption"].dropna().unique()), levels),
        "rates": sorted(float(d) for d in rows["discovery"].dropna().unique()),
        "sources": sorted(set(rows[LABEL])),
    }
    start = Path(os.path.relpath(store.root.resolve(), folder.resolve())).as_posix()
    return {
        **lists,
        "oracles": [m for m in methods if m in unranked],
        "regularity": levels,
        "metrics": metrics,
        "least": LEAST,
        "folder": f"./{quote(start)}/",
        **_collect_runs(store, rows, _run_rates(rows), [m["key"] for m in metrics], lists),
        "broken": [{k: run[k] for k in ("id", "reason", "command")} for run in lost],
    }


def _unique_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each run's row once, at its own discovery rate, without copies for other rates."""
    if "config/discovery" in rows:
        rows = rows[
            rows["discovery"].eq(rows["config/discovery"]) | rows["config/discovery"].isna()
        ]
    return rows.reset_index(drop=True)


def _run_rates(rows: pd.DataFrame) -> dict[Hashable, list[float]]:
    """Return the discovery rates at which each run counts; copies few columns for speed."""
    narrow = rows[existing_columns(rows, ("run_id", "step", "method", "seed", *TASK))]
    known = (
        spread_rates(narrow).dropna(subset=["discovery"]).groupby(["run_id", "step"])["discovery"]
    )
    return {key: sorted({float(v) for v in values}) for key, values in known}


def _with_broken(rows: pd.DataFrame, lost: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows plus those of failed runs whose task and method occur in the rows."""
    more = label_pretraining(pd.DataFrame(lost))
    if rows.empty or more.empty:
        return rows
    keep = ~more["run_id"].isin(rows["run_id"])  # failed when run again: keep the row
    for column in existing_columns(rows, (*TASK, "method")):
        if column in more:  # a failed run only has its overrides
            keep &= more[column].isin(rows[column])
    both = pd.concat([rows, more[keep]], ignore_index=True) if keep.any() else rows
    return both.copy()  # all at once: pandas warns about fragmentation


def _name_sources(rows: pd.DataFrame) -> list[str]:
    """Return the label of each row's data and network; each label has its own map."""
    varying = [
        (column, word)
        for column, word in (("corrupted", "corrupted"), ("step", "request"))
        if column in rows and rows[column].nunique() > 1
    ]
    out = []
    for row in rows.to_dict("records"):
        words = [str(row[c]) for c in ("dataset", "model") if not pd.isna(row.get(c))]
        out.append(" · ".join(words + [f"{word} {row[c]:g}" for c, word in varying]))
    return out


def _list_metrics(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the numeric columns, the headline first, with their display format."""
    better = _metric_directions(rows)
    skip = {*OWN, *NAMES} - {"seconds", "peak_bytes"}
    named = [str(c) for c in rows if not str(c).startswith(("config/", "versions/", "failed/"))]
    found = [c for c in named if c not in skip and _is_numeric(rows[c])]
    first = [c for c in HEADLINE if c in found]
    out = []
    for key in [*first, *(c for c in found if c not in first)]:
        values = rows[key].dropna().astype(float)
        unbounded = key.endswith(UNBOUNDED)
        bounded = not unbounded and bool(values.between(0, 1).all())
        title = TITLES.get(key, key.replace("_", " ").replace("/", " / "))
        entry: dict[str, Any] = {"key": key, "title": title, "about": define_column(key)}
        entry["whole"] = bool((values % 1 == 0).all())
        entry["best"] = better.get(key, "min" if unbounded else None)
        # Collapsed models count as in the tables; a rate that is better low must not get a 0.
        entry |= {"fraction": bounded, "counted": bounded and key.startswith(HEADLINE[:2])}
        if key.startswith(("healed", RECOVERED)):  # means leave out cells with nothing to unlearn
            entry["healing"] = True
        out.append(entry)
    return out


def _is_numeric(column: pd.Series) -> bool:
    known = [to_json_value(v) for v in column.dropna()]
    return bool(known) and all(type(v) in (int, float) for v in known)  # a bool is an int, too


def _metric_directions(rows: pd.DataFrame) -> dict[str, str]:
    """Return the direction ("max" or "min") of the columns of our metrics."""
    out = {name: best for name, best in DIRECTIONS.items() if name in rows}
    for column in rows:
        name = str(column)
        if not (name.startswith("config/evaluation.") and name.endswith("._target_")):
            continue
        for target in rows[column].dropna().unique():
            if not str(target).startswith("unlearn.evaluation."):  # a row must not run code
                continue
            try:
                out |= pkgutil.resolve_name(str(target)).directions
            except (ImportError, AttributeError):
                log.warning("unknown metric %s: its direction is not shown", target)
    return out


def _collect_runs(
    store: ResultsStore,
    rows: pd.DataFrame,
    rates: Mapping[Hashable, Sequence[float]],
    metrics: Sequence[str],
    lists: Mapping[str, list[Any]],
) -> dict[str, Any]:
    """Return each run once, with references into the shared lists and pools."""
    place = {name: {v: i for i, v in enumerate(values)} for name, values in lists.items()}
    common, pool, differs = split_configs(rows)
    notes = [c for c in rows if str(c).startswith(("method/", "failed/")) and c not in metrics]
    axes: dict[str, int] = {}
    runs = []
    for i, row in enumerate(rows.to_dict("records")):
        folder = store.root / row["run_id"]
        lines = read_curves(folder / FILES["l"])
        epochs = json.dumps(lines.pop("epoch", []))
        run = {
            **_run_facts(row, metrics, notes),
            "method": place["methods"][str(row["method"])],
            "corruption": place["corruptions"][str(row["corruption"])],
            "source": place["sources"][row[LABEL]],
            "rates": [place["rates"][r] for r in rates.get((row["run_id"], row["step"]), ())],
            "differs": differs[i],
            "command": read_command(folder),
            "files": "".join(k for k, name in FILES.items() if (folder / name).exists()),
            "axis": axes.setdefault(epochs, len(axes)),
            "curves": lines,
        }
        runs.append({k: v for k, v in run.items() if v not in (None, {}, [], "")})
    return {"runs": runs, "common": common, "pool": pool, "axes": [json.loads(a) for a in axes]}


def _run_facts(
    row: Mapping[Any, Any], metrics: Sequence[str], notes: Sequence[Any]
) -> dict[str, Any]:
    """Return the facts of a row that concern only its run."""
    texts = {key: row.get(key) for key in ("reason", "created")}
    return {
        "id": row["run_id"],
        "own": shorten_value(row["discovery"], 17),
        "seed": shorten_value(row["seed"], 9),
        "status": row["status"],
        "values": [shorten_value(row[m], 6) for m in metrics],
        "notes": {str(c): shorten_value(row[c], 6) for c in notes if not pd.isna(row[c])},
        **{key: text for key, text in texts.items() if isinstance(text, str)},
    }


def split_configs(rows: pd.DataFrame) -> tuple[dict[str, Any], list[list[Any]], list[list[int]]]:
    """Return the common config, the pool of differing values, and each row's indices into it.

    Configs of a sweep are nearly equal, so a row holds only values that differ from most rows.
    Paths and the values in a cell's heading are left out.

    Args:
        rows: One per run, with columns ``config/...`` and ``versions/...``.
    """
    common: dict[str, Any] = {}
    pool: list[list[Any]] = []
    differs: list[list[int]] = [[] for _ in range(len(rows))]
    for column in map(str, rows.columns):
        if not column.startswith(("config/", "versions/")) and column != "revision":
            continue
        if column.startswith(("config/paths.", "config/names.")) or column in SHOWN_ELSEWHERE:
            continue
        key, values = column.removeprefix("config/"), rows[column]
        if key.startswith("seeds.") or key.endswith(".seed"):
            values = values.mask(values == rows["seed"])  # only a seed that differs is listed
        texts = [json.dumps(shorten_value(v, 17)) for v in values]
        usual = Counter(texts).most_common(1)[0][0]
        if usual != "null":
            common[key] = json.loads(usual)
        places: dict[str, int] = {}
        for own, text in zip(differs, texts, strict=True):
            if text != usual:
                if text not in places:
                    places[text] = len(pool)
                    pool.append([key, json.loads(text)])
                own.append(places[text])
    return common, pool, differs
