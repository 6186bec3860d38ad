"""A W&B workspace that compares methods over the task space: a write-only mirror of rows.

Runs are found by the summary that ``run_tracking`` logs. The heat map is our own chart preset
(Vega-Lite): W&B has none that averages runs over two keys.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unlearn.reporting.tables.facts import LEVELS
from unlearn.reporting.tracking.run_tracking import SPACE
from unlearn.training.loggers import no_server

log = logging.getLogger(__name__)

NAME = "Methods over the plane"
CHART = "unlearn-plane"
VALUES = ("healed", "utility", "healed_utility")
HEAT_MAP_FIELDS = ("method", "corruption", "discovery", "healed_utility", "regularity")


def _import_workspaces() -> tuple[Any, Any]:
    """Return the two modules of wandb-workspaces: workspaces and reports (panels)."""
    try:
        with warnings.catch_warnings():  # pydantic's warnings about the library's classes
            warnings.simplefilter("ignore", DeprecationWarning)
            from wandb_workspaces import workspaces
            from wandb_workspaces.reports import v2
    except ModuleNotFoundError as error:
        raise ValueError(
            "dashboard=true needs the package wandb-workspaces: pip install wandb-workspaces"
        ) from error
    return workspaces, v2


def heat_map() -> dict[str, Any]:
    """Return a Vega-Lite chart: mean product per corruption and rate, a square per method."""
    method, corruption, discovery, value, regularity = (
        f"${{field:{name}}}" for name in HEAT_MAP_FIELDS
    )
    by_level = {"field": "level", "op": "max", "order": "descending"}  # the least regular first
    color = {"field": "mean", "type": "quantitative", "title": "healed x utility"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"name": "wandb"},
        "transform": [
            {"filter": f"isValid(datum['{value}'])"},
            {"calculate": f"indexof({list(LEVELS)}, datum['{regularity}'])", "as": "level"},
            {
                "aggregate": [
                    {"op": "mean", "field": value, "as": "mean"},
                    {"op": "count", "as": "runs"},
                    {"op": "max", "field": "level", "as": "level"},
                ],
                "groupby": [method, corruption, discovery],
            },
        ],
        "facet": {"field": method, "type": "nominal", "title": None},
        "columns": 4,
        "spec": {
            "mark": "rect",
            "encoding": {
                "x": {"field": discovery, "type": "ordinal", "title": "discovery rate"},
                "y": {"field": corruption, "type": "nominal", "sort": by_level, "title": None},
                "color": color | {"scale": {"domain": [0, 1], "scheme": "viridis"}},
                "tooltip": [{"field": key} for key in (method, corruption, discovery)]
                + [{"field": "mean", "format": ".3f"}, {"field": "runs"}],
            },
        },
    }


def make_filters(where: Mapping[str, Any]) -> Any:
    """Return W&B's filters: runs of unlearning whose columns equal these, or one of a list.

    Raises:
        ValueError: If a column is not part of the task space.
    """
    ws, _ = _import_workspaces()
    unknown = sorted(set(where) - set(SPACE))
    if unknown:
        raise ValueError(
            f"where.{unknown[0]} cannot be used with dashboard=true; allowed: {', '.join(SPACE)}"
        )
    kept = [ws.Summary("status").isin(["ok", "collapsed"])]  # summaries and trainings lack it
    for key, value in where.items():
        column: Any = ws.Summary(key)
        kept.append(column.isin(list(value)) if isinstance(value, list) else column == value)
    return ws.And(*kept)


def make_workspace(entity: str, project: str, where: Mapping[str, Any]) -> Any:
    """Return the workspace, not saved yet.

    Args:
        entity: W&B team or user.
        project: W&B project.
        where: Columns that runs must equal.

    Raises:
        ValueError: If the library is not installed, or a column is none of the task space.
    """
    ws, _ = _import_workspaces()
    runs = ws.RunsetSettings(
        filters=make_filters(where),
        groupby=[ws.Metric("JobType")],  # the method
        order=[ws.Ordering(ws.Summary("healed_utility"), ascending=False)],
        pinned_columns=[f"summary:{key}" for key in (*SPACE, *VALUES, "seconds", "status")],
    )
    sections = [
        ws.Section(name=name, panels=panels, is_open=True)
        for name, panels in _make_panels(f"{entity}/{CHART}").items()
    ]
    return ws.Workspace(
        entity=entity, project=project, name=NAME, sections=sections, runset_settings=runs,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
    )  # fmt: skip


def _make_panels(chart: str) -> dict[str, list[Any]]:
    """Return the panels by the title of their section."""
    _, wr = _import_workspaces()
    wide = wr.Layout(w=24, h=12)
    axes = (*SPACE[:3], "seed", *VALUES, "seconds")
    return {
        "The plane": [
            wr.CustomChart(
                query={"summary": {"keys": list(HEAT_MAP_FIELDS)}},
                chart_name=chart,
                chart_fields={key: f"summary:{key}" for key in HEAT_MAP_FIELDS},
                layout=wide,
            ),
            *[_method_bars(key) for key in VALUES],
            wr.ScatterPlot(
                title="healed against utility",
                x=wr.SummaryMetric("utility"),
                y=wr.SummaryMetric("healed"),
            ),
        ],
        "Runs against each other": [
            wr.ParallelCoordinatesPlot(
                columns=[wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(key)) for key in axes],
                layout=wide,
            ),
            wr.RunComparer(diff_only="split", layout=wide),
        ],
        "Curves": [
            wr.LinePlot(title=title, x="epoch", y=list(keys), groupby="JobType")
            for title, keys in CURVES.items()
        ],
        "Samples and rows": [
            wr.MediaBrowser(media_keys=["samples"], layout=wide),
            *[wr.WeavePanelSummaryTable(table_name=key, layout=wide) for key in TABLES],
        ],
    }


CURVES = {  # names of the remaining network in the monitor; REM nests it
    "loss of the method": ("train/loss",),
    "healed, epoch by epoch": ("model/healed", "base/healed"),
    "hidden samples with the corrupted label": (
        "model/hidden_accuracy_given",
        "base/hidden_accuracy_given",
    ),
}
TABLES = ("row", "confusion/test/before", "confusion/test/after", "confusion/corrupted/after")


def _method_bars(key: str) -> Any:
    """Return a bar per method: mean and standard error."""
    _, wr = _import_workspaces()
    return wr.BarPlot(
        title=key, metrics=[wr.SummaryMetric(key)], groupby="JobType",
        groupby_aggfunc="mean", groupby_rangefunc="stderr", max_bars_to_show=50,
    )  # fmt: skip


def describe_workspace(made: Any) -> dict[str, Any]:
    """Return the content for the server as JSON values: chart preset and workspace."""
    view = made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"chart": heat_map(), "workspace": view}


def publish_dashboard(
    options: Mapping[str, Any] | None, where: Mapping[str, Any], folder: Path
) -> str:
    """Create the workspace and return its URL; its content is also written to ``dashboard.json``.

    Args:
        options: Options of ``wandb_logger``: project and entity.
        where: Columns that runs must equal.
        folder: Folder of reports.

    Raises:
        ValueError: If W&B is not the logger, cannot be reached, or rejects the request.
    """
    if options is None:
        raise ValueError("dashboard=true needs logger=wandb, whose project and entity it uses")
    why = no_server()
    entity = options["entity"] or ("" if why else _find_entity())
    made = make_workspace(entity, options["project"], where)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dashboard.json"
    path.write_text(json.dumps(describe_workspace(made), indent=1))
    if why:
        raise ValueError(
            f"dashboard=true needs a W&B server: {why}; content of the dashboard: {path}"
        )
    _save_workspace(made)
    log.info("dashboard: %s (content: %s)", made.url, path)
    return made.url


def _find_entity() -> str:
    import wandb  # slow to import, and only this function needs it

    with _report_refusals():
        return wandb.Api().default_entity or ""


def _save_workspace(made: Any) -> None:
    """Create the chart, unless it exists, and the workspace."""
    import wandb  # slow to import, and only this function needs it
    from wandb.errors import term

    with _report_refusals():
        try:
            wandb.Api().create_custom_chart(
                made.entity, CHART, NAME, spec_type="vega2", access="private", spec=heat_map()
            )
        except wandb.Error as error:
            if "exist" not in str(error).lower():
                raise
        term.termsetup(wandb.Settings(silent=True), None)  # we log the URL ourselves
        made.save()


@contextlib.contextmanager
def _report_refusals() -> Iterator[None]:
    """Raise any of the library's errors as a ValueError with a one-line message."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise ValueError(
            f"W&B could not create the dashboard: {type(error).__name__}: {text}"
        ) from error
