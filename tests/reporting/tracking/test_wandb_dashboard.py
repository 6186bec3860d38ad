"""The W&B workspace: what it holds by its library's own words, and what a server is sent."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from unlearn.reporting.tracking import run_tracking, wandb_dashboard

REPOSITORY = Path(__file__).resolve().parents[3]
KEY = "0123456789" * 4


def test_the_workspace_compares_methods_over_the_plane():
    made = wandb_dashboard.make_workspace(
        "team", "unlearn", {"corruption": "poison", "seed": [0, 1]}
    )
    view = wandb_dashboard.describe_workspace(made)["workspace"]
    assert (view["entity"], view["project"]) == ("team", "unlearn")
    section = view["spec"]["section"]
    panels = {
        part["name"]: [(panel["viewType"], panel["config"]) for panel in part["panels"]]
        for part in section["panelBankConfig"]["sections"]
    }
    (kind, plane), *rest = panels["The plane"]
    assert kind == "Vega2" and plane["panelDefId"] == "team/unlearn-plane"
    assert plane["fieldSettings"] == {
        key: f"summary:{key}" for key in wandb_dashboard.HEAT_MAP_FIELDS
    }
    (query,) = plane["userQuery"]["queryFields"]
    asked = {field["name"]: field for field in query["fields"]}
    assert asked["summary"]["args"][0]["value"] == list(wandb_dashboard.HEAT_MAP_FIELDS)
    bars = [config for kind, config in rest if kind == "Bar Chart"]
    assert [b["metrics"][0].removeprefix("summary_metrics.") for b in bars] == [
        "healed", "utility", "healed_utility"
    ]  # fmt: skip
    assert {b["groupBy"] for b in bars} == {"jobType"}
    kinds = {name: [kind for kind, _ in part] for name, part in panels.items()}
    assert kinds["Runs against each other"] == ["Parallel Coordinates Plot", "Run Comparer"]
    axes = panels["Runs against each other"][0][1]["columns"]
    assert [a["accessor"].removeprefix("summary:") for a in axes][:3] == [
        "method", "corruption", "discovery"
    ]  # fmt: skip
    curves = [config["metrics"] for _, config in panels["Curves"]]
    assert curves[:2] == [["train/loss"], ["model/healed", "base/healed"]]
    assert curves[2] == [f"{name}/hidden_accuracy_given" for name in ("model", "base")]
    assert kinds["Samples and rows"] == ["Media Browser"] + ["Weave"] * len(wandb_dashboard.TABLES)


def test_runs_are_grouped_by_method_and_chosen_by_where():
    made = wandb_dashboard.make_workspace(
        "team", "unlearn", {"corruption": "poison", "seed": [0, 1]}
    )
    (runs,) = wandb_dashboard.describe_workspace(made)["workspace"]["spec"]["section"]["runSets"]
    assert [(key["section"], key["name"]) for key in runs["grouping"]] == [("run", "jobType")]
    assert made.runset_settings.filters == (
        "SummaryMetric(\"status\") in ['ok', 'collapsed'] and "
        'SummaryMetric("corruption") == \'poison\' and SummaryMetric("seed") in [0, 1]'
    )
    assert runs["sort"]["keys"][0]["key"]["name"] == "healed_utility"
    pinned = set(runs["runFeed"]["columnPinned"])
    assert {f"summary:{key}" for key in run_tracking.SPACE} < pinned
    with pytest.raises(
        ValueError, match=r"where.tea cannot be used .* allowed: method, corruption"
    ):
        wandb_dashboard.make_filters({"tea": 1})


def test_the_heat_map_averages_runs_of_a_cell():
    chart = wandb_dashboard.heat_map()
    (aggregate,) = [part for part in chart["transform"] if "aggregate" in part]
    fields = [f"${{field:{key}}}" for key in ("method", "corruption", "discovery")]
    assert aggregate["groupby"] == fields
    assert aggregate["aggregate"][0] == {
        "op": "mean", "field": "${field:healed_utility}", "as": "mean"
    }  # fmt: skip
    level = {"op": "max", "field": "level", "as": "level"}  # the least regular corruption first
    assert level in aggregate["aggregate"]
    inside = chart["spec"]["encoding"]
    assert inside["y"]["sort"] == {"field": "level", "op": "max", "order": "descending"}
    assert chart["facet"]["field"] == fields[0]
    assert (inside["y"]["field"], inside["x"]["field"]) == (fields[1], fields[2])
    assert inside["color"]["field"] == "mean" and inside["color"]["scale"]["domain"] == [0, 1]


def evaluate(home: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    own = {"UNLEARN_HOME": str(home / "outputs"), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "evaluate.py", "dashboard=true", *more], cwd=REPOSITORY,
        env=kept | own | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_without_a_server_it_is_one_line_and_a_file(tmp_path: Path):
    result = evaluate(
        tmp_path, "logger=wandb", WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9"
    )
    path = tmp_path / "outputs" / "reports" / "dashboard.json"
    assert result.stderr.splitlines() == [
        "error: dashboard=true needs a W&B server: 127.0.0.1 cannot be reached; "
        f"content of the dashboard: {path}"
    ]
    assert result.returncode == 2 and result.stdout == ""
    held = json.loads(path.read_text())
    assert held["workspace"]["displayName"] == wandb_dashboard.NAME
    assert held["chart"] == json.loads(json.dumps(wandb_dashboard.heat_map()))


def test_without_a_key_or_the_logger_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(wandb_dashboard, "no_server", lambda: "no key found")
    options = {"project": "unlearn", "entity": None}
    with pytest.raises(
        ValueError, match="needs a W&B server: no key found; content of the dashboard"
    ):
        wandb_dashboard.publish_dashboard(options, {}, tmp_path)
    with pytest.raises(ValueError, match="dashboard=true needs logger=wandb"):
        wandb_dashboard.publish_dashboard(None, {}, tmp_path)


class Server(BaseHTTPRequestHandler):
    """Answers what the library asks of W&B, and keeps what it was sent."""

    sent: dict[str, Any] = {}
    refuses = False

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body) if self.path == "/graphql" else {"query": ""}
        query, data = asked["query"], {}
        if "viewer" in query:
            user = {"id": "u", "entity": "team", "username": "me", "email": "e", "flags": "{}"}
            data["viewer"] = user | {"teams": {"edges": []}}
        if "createCustomChart" in query:
            self.sent["chart"] = asked["variables"]
            data["createCustomChart"] = {"chart": {"id": "c"}}
        if "upsertView" in query:
            self.sent["view"] = asked["variables"]
            view = {"id": "v", "name": "nw-abc-v"}
            data["upsertView"] = {"view": view, "inserted": True}
        out = {"data": data}
        if self.refuses and "upsertView" in query:
            out = {"errors": [{"message": "permission denied"}], "data": None}
        text = json.dumps(out).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def server() -> Iterator[str]:
    Server.sent, Server.refuses = {}, False
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


@pytest.mark.slow
def test_a_server_is_sent_the_chart_and_the_workspace(tmp_path: Path, server: str):
    result = evaluate(
        tmp_path, "logger=wandb", "where.corruption=poison",
        WANDB_API_KEY=KEY, WANDB_BASE_URL=server,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    said = result.stdout + result.stderr
    path = tmp_path / "outputs" / "reports" / "dashboard.json"
    assert said.split("\n") == [
        f"dashboard: {server}/team/unlearn?nw=abc (content: {path})", ""
    ]  # fmt: skip
    chart, view = Server.sent["chart"], Server.sent["view"]
    assert (chart["entity"], chart["chartName"]) == ("team", "unlearn-plane")
    assert json.loads(chart["spec"]) == json.loads(json.dumps(wandb_dashboard.heat_map()))
    assert (view["entityName"], view["projectName"]) == ("team", "unlearn")
    assert json.loads(view["spec"]) == json.loads(path.read_text())["workspace"]["spec"]
    assert KEY not in path.read_text()


@pytest.mark.slow
def test_a_server_that_refuses_is_quoted(tmp_path: Path, server: str):
    Server.refuses = True
    result = evaluate(tmp_path, "logger=wandb", WANDB_API_KEY=KEY, WANDB_BASE_URL=server)
    (line,) = result.stderr.splitlines()
    assert (
        line.startswith("error: W&B could not create the dashboard: ")
        and "permission denied" in line
    )
    assert result.returncode == 2
