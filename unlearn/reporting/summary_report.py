"""The summary that evaluate.py prints: tables of recorded rows, and advice."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from unlearn.core.files import write_text_atomically
from unlearn.core.words import count_noun
from unlearn.reporting.figures import canvas, catalog
from unlearn.reporting.pages.results_page import write_report
from unlearn.reporting.tables import (
    advice,
    best_settings,
    claims,
    comparisons,
    detectors,
    formats,
    frames,
    measured_regularity,
    memorized,
    merged_planes,
    oracle_gaps,
    refined,
    regularity_fit,
    summary,
    trusted,
)
from unlearn.reporting.tables.facts import regularity_levels
from unlearn.reporting.tracking import wandb_mirror
from unlearn.scoring.regularity import Regularity
from unlearn.storage.results_store import ResultsStore

log = logging.getLogger(__name__)


def write_summary(config: Mapping[str, Any]) -> list[Path]:
    """Print the summary of all recorded rows and write tables and figures.

    Raises:
        ValueError: If there are no rows, or an option is wrong.
    """
    if config["figure"] not in catalog.NAMES:
        allowed = ", ".join(catalog.NAMES)
        raise ValueError(f"figure must be one of {allowed}, got {config['figure']}")
    options = wandb_mirror.find_wandb_options(config["logger"])
    wanted = [claim for node in config["expected"] for claim in claims.parse_claims(node)]
    store = ResultsStore(Path(config["paths"]["results"]))
    rows = store.load(**config["where"])
    if rows.empty:
        raise ValueError(f"no results in {store.root} for where={dict(config['where'])}")
    rows = _select_rows(frames.drop_text_values(rows))
    frame = frames.prepare_rows(rows)
    frame, measured = _measure_regularity(frame, store)
    corrupted, plain = (frame[~(none := refined.is_uncorrupted(frame))], frame[none])
    tasks = memorized.tabulate_tasks(corrupted)
    made = {"tasks": tasks} if len(tasks) else {}
    made |= _corrective_tables(corrupted, config) | _regularity_tables(corrupted, measured)
    made |= _refined_tables(plain, config["by"])
    if len(gaps := oracle_gaps.gap_table(frame)):
        made["localization"] = gaps
    if wanted:
        made["claims"] = claims.compare_claims(_with_curves(store, frame, wanted), wanted)
    _print_tables(made, corrupted, len(plain), config["title"])
    folder = Path(config["paths"]["reports"])
    paths = []
    for name, table in made.items():
        paths += formats.save_tables(table, folder / name, latex=name != "claims")
    curves = None if corrupted.empty else catalog.redirection_curves(store, corrupted)
    drawn = {
        stem: canvas.save_figure(figure, folder / stem)
        for stem, figure in catalog.draw_figures(config["figure"], frame, curves).items()
    }
    page = write_report(store, rows, folder / "report.html")
    if options is not None:
        run_id = wandb_mirror.summary_id(
            list(rows["run_id"]), {k: config[k] for k in ("by", "where")}
        )
        pictures = {stem: files[0] for stem, files in drawn.items()}
        wandb_mirror.mirror_report(
            made, pictures, folder=folder, run_id=run_id, options=options, report=page
        )
    for run_id, line in store.read_failures().items():
        log.warning("broken run %s: %s", store.run_folder(run_id), line)
    log.info("results: %s", store.mirror)
    log.info("in %s: %s", folder, ", ".join([*made, *drawn]))
    log.info("interactive report: %s", page)
    return [*paths, *(path for files in drawn.values() for path in files), page]


def _measure_regularity(
    frame: pd.DataFrame, store: ResultsStore
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows with their corruption's measured regularity, and what was measured in them."""
    measured = measured_regularity.measure_regularity(frame)
    known = measured_regularity.remember_regularity(measured, _regularity_file(store))
    return measured_regularity.attach_regularity(frame, known), measured


def _regularity_file(store: ResultsStore) -> Path:
    return store.root.parent / "regularity.csv"


def _regularity_tables(frame: pd.DataFrame, measured: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the measured regularities, and where methods fall below doing nothing."""
    if frame.empty:
        return {}
    cells = regularity_fit.average_products(frames.on_plane(frame))
    tables = {
        "regularity": measured_regularity.tabulate_regularity(measured),
        "below_nothing": regularity_fit.compare_with_nothing(cells),
    }
    return {stem: table for stem, table in tables.items() if len(table)}


def _select_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the current data; log what is left out and whether machines are mixed."""
    rows, lines = frames.select_current_data(rows)
    mixed = frames.describe_machines(rows)
    for line in [*lines, *([mixed] if mixed else [])]:
        log.warning("%s", line)
    return rows


def print_advice(config: Mapping[str, Any], regularity: Regularity | None = None) -> list[Path]:
    """Print which methods to use or avoid in a case, and why; write the tables.

    Args:
        config: Config of the job, with corruption and discovery rate of the case.
        regularity: Estimate for the user's bad data, if the kind of corruption is unknown.

    Raises:
        ValueError: If the kind of corruption was not measured.
    """
    store = ResultsStore(Path(config["paths"]["results"]))
    rows = store.load(**config["where"]) if store.root.is_dir() else pd.DataFrame()
    measured = rows
    if not rows.empty:
        rows = _select_rows(frames.drop_text_values(rows))
        measured = frames.on_plane(frames.prepare_rows(rows))
    if not measured.empty:
        measured = measured[~refined.is_uncorrupted(measured)]
    shipped = advice.load_shipped_plane()
    own = pd.DataFrame() if measured.empty else advice.aggregate_plane(measured)
    table = merged_planes.merge_planes(own, shipped)
    fitting = table if config["checkpoint"] is None else advice.for_trained(table)
    kind = config["names"]["corruption"]
    case = advice.Case(None if kind == "none" else kind, config["discovery"])
    if regularity is not None:
        alike = [c for c, v in regularity_levels(table).items() if v == regularity.level]
        case = replace(case, corruption=next(iter(alike), case.corruption))
    setting = merged_planes.choose_setting(fitting, config["names"], case.corruption)
    cells = advice.select_nearest(setting, case)
    found = advice.make_advice(cells)
    revision = str(shipped["revision"].mode()[0])[:8]
    source = merged_planes.describe_sources(cells, fitting, str(store.root), revision)
    title = advice.describe_case(case, cells, source)
    title = title if regularity is None else f"{regularity.describe_estimate()}\n{title}"
    formats.print_table(advice.shorten_advice(found), title)
    folder = Path(config["paths"]["reports"])
    if regularity is not None:
        _print_fit_advice((own, setting), case.discovery, regularity, store)
    paths = [*formats.save_tables(found, folder / "advice"), folder / "plane.csv"]
    text = f"{title}\n\n{formats.to_markdown(found)}"
    write_text_atomically(folder / "advice.md", text)
    plane = formats.escape_formulas(table)
    plane.to_csv(paths[-1], index=False, float_format="%.4g", lineterminator="\n")
    log.info("in %s: advice, plane.csv (all measured cells)", folder)
    return paths


def _print_fit_advice(
    tables: Sequence[pd.DataFrame],
    discovery: float | None,
    regularity: Regularity,
    store: ResultsStore,
) -> None:
    """Print the fitted products at a user's estimated regularity, of the first table with enough cells.

    The estimate's consistency is the first term of the measured regularity; images that any model
    gets wrong raise it.
    """
    known = measured_regularity.read_known(_regularity_file(store))
    for table in tables:
        if table.empty:
            continue
        cells = measured_regularity.attach_regularity(table, known)
        found = regularity_fit.advise_at(cells, regularity.consistency, discovery)
        if len(found):
            title = f"fit at regularity {regularity.consistency:.2f} (consistency)"
            formats.print_table(found, title)
            return


def _corrective_tables(frame: pd.DataFrame, config: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the tables of corrupted data by the stem of their files."""
    left_out = memorized.describe_left_out(frame)
    frame = frame[~memorized.has_nothing(frame)]
    if frame.empty:
        return {}
    alone = list(config["by"]) == ["method"]
    main = (
        summary.summarize_methods(frame)
        if alone
        else summary.summarize_metrics(frame, by=config["by"])
    )
    made = {"summary": main, "regions": comparisons.compare_regions(frame)}
    tested = comparisons.compare_with_best(frame)
    made |= {} if tested.empty else {"tests": tested}
    for table in made.values():
        table.attrs |= {} if left_out is None else {formats.NOTE: left_out}
    more = {
        "best_settings": best_settings.tabulate_best_settings(frames.on_plane(frame)),
        "detectors": detectors.tabulate_detectors(frame),
    }
    return made | {stem: table for stem, table in more.items() if len(table)}


def _refined_tables(frame: pd.DataFrame, by: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the tables of uncorrupted data by the stem of their files."""
    found = {"refined": refined.tabulate_refined(frame, by), "rum": refined.tabulate_rum(frame)}
    return {stem: table for stem, table in found.items() if len(table)}


def _print_tables(
    made: Mapping[str, pd.DataFrame], frame: pd.DataFrame, plain: int, title: str | None
) -> None:
    """Print the tables that add information, and warnings."""
    left_out = memorized.describe_left_out(frame)
    if "tasks" in made:
        formats.print_table(made["tasks"], memorized.TITLE)
    frame = frame[~memorized.has_nothing(frame)]
    if "summary" in made:
        usual = f"{count_noun(len(frame), 'run')}, mean ± standard error over cells"
        formats.print_table(made["summary"], title or usual)
    if left_out is not None:
        formats.print_notes([left_out])
    if "trusted" in made.get("summary", ()):
        formats.print_notes(trusted.RULES)
    gap = None if frame.empty else trusted.find_gap(frame)
    if gap is not None:
        log.warning("%s", gap)
    several = frame["corruption"].nunique() > 1 or frame["discovery"].nunique() > 1
    if several and "regions" in made:
        heading = "healed x utility by region (± seeds: error over seeds alone)"
        formats.print_table(made["regions"], heading, errors=False)
    if "regularity" in made:
        shown = made["regularity"].drop(columns="by")
        formats.print_table(shown, "measured regularity: given labels of a model that has half of "
                            "the corruption, minus of one without (± over seeds)")  # fmt: skip
    if "below_nothing" in made:
        formats.print_table(made["below_nothing"], "fit over discovery rate and measured regularity: "
                            "share of the plane below doing nothing")  # fmt: skip
    if "best_settings" in made:
        formats.print_table(made["best_settings"].drop(columns="options"), best_settings.TITLE)
    if "tests" in made and made["tests"]["p"].notna().any():
        formats.print_table(made["tests"], f"best method against each other: {comparisons.TEST}")
    if "refined" in made:
        usual = f"{count_noun(plain, 'row')} without corruption, mean ± 95 % interval over seeds"
        formats.print_table(
            refined.shorten_table(made["refined"]), (not len(frame) and title) or usual
        )
    if "localization" in made:
        formats.print_table(made["localization"], oracle_gaps.TITLE)
    if "detectors" in made:
        formats.print_table(made["detectors"], "healed x utility by detector")
    if "claims" in made:
        formats.print_table(
            made["claims"].drop(columns="source"), "published claims and measured values"
        )
        formats.print_notes([claims.count_verdicts(made["claims"])])
    if frame.empty:
        return
    for line in comparisons.list_cautions(frame):
        log.warning("%s", line)


def _with_curves(
    store: ResultsStore, frame: pd.DataFrame, wanted: Sequence[claims.Claim]
) -> pd.DataFrame:
    """Return the rows with the curve values that claims name ``curve/<column>/first|last``."""
    columns = {c.column for c in wanted if c.column.startswith("curve/")}
    for column in columns:
        name, _, end = column.removeprefix("curve/").rpartition("/")
        values = {
            run_id: catalog.curve_end(store, str(run_id), name, end)
            for run_id in set(frame["run_id"])
        }
        frame = frame.assign(**{column: frame["run_id"].map(values)})
    return frame
