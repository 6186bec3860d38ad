"""Published tables as commands: one command runs what is missing, then compares."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from unlearn.config.command_line import parse_command_line
from unlearn.config.registration import config_dir
from unlearn.core.errors import ConfigError
from unlearn.core.job import Job
from unlearn.core.scale import SCALES, select_scale
from unlearn.orchestration import reproduction
from unlearn.orchestration.runner import _instantiate_node
from unlearn.pipeline.run_record import _display_names
from unlearn.reporting.tables.claims import parse_claims
from unlearn.reporting.tables.frames import label_pretraining

FOLDER = Path(config_dir(), "experiment", "report")
NAMES = sorted(path.stem for path in FOLDER.glob("reproduce_*.yaml"))
TINY = (
    "dataset=synthetic corruption=random_label pretraining.epochs=1 model.width=2 method=original "
    "seed=0,1 logger=none trainer.progress=false save_model=false"
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_HOME", str(tmp_path))
    return tmp_path


def arguments_of(*words: str):
    return reproduction.add_small_overrides(parse_command_line(words, "evaluate"))


def list_labels(cells) -> set[str]:
    """Return the labels that tables give to the runs."""
    labels = set()
    for cell in cells:
        job = Job(dict(cell.content), cell.run_id, cell.folder, cell.names, _instantiate_node)
        names = pd.DataFrame([_display_names(job)])
        labels |= set(label_pretraining(names)["method"])
    return labels


SHORT = ("reproduce_rem_inside", "reproduce_proxies", "reproduce_del_svhn")
"""Tables whose plans are made in the usual run of the tests: composing all takes minutes."""

PLANS = [
    pytest.param(name, scale, marks=() if name in SHORT and scale == "small" else pytest.mark.slow)
    for name in NAMES
    for scale in SCALES
]


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source_and_every_recipe_a_cost(name: str):
    content = yaml.safe_load(Path(FOLDER, f"{name}.yaml").read_text())
    for part in (content, content["small"]):
        assert part["cost"] and part["title"]
        assert part.get("runs") or content.get("defaults"), "nothing to run"
        claims = [claim for node in part["expected"] for claim in parse_claims(node)]
        assert claims
        for claim in claims:
            assert "arXiv" in claim.source or claim.source == "our acceptance", claim
            assert claim.value is None or claim.tolerance > 0, claim


@pytest.mark.parametrize(("name", "scale"), PLANS)
def test_every_table_plans_and_its_labels_are_those_of_its_runs(name: str, scale: str, home):
    arguments = arguments_of(f"experiment={name}", f"scale={scale}")
    config = reproduction.read_experiment(arguments)
    found = reproduction.expand_runs(config, arguments)
    cells = reproduction.list_cells(found)
    assert cells or config["compare_scores"], "nothing to run"
    assert reproduction.describe_cost(config, found)[-1] == f"stated cost: {config['cost']}"
    claims = [claim for node in config["expected"] for claim in parse_claims(node)]
    labels = list_labels(cells) | set(config["compare_scores"] or ())
    named = {claim.method for claim in claims}
    others = [claim.minus or {} for claim in claims]
    named |= {str(other["method"]) for other in others if "method" in other}
    assert named <= labels
    if scale == "small":  # minutes of two cores, without a download
        sets = {cell.content["dataset"]["_target_"] for cell in cells}
        assert sets <= {"unlearn.data.datasets.digits.Digits"}
        assert len(cells) <= 130


def test_one_command_runs_what_is_missing_and_compares(home):
    """Twice: nothing is run again; rows of other runs in the folder do not count."""
    claim = "{method: original, column: utility, at_least: 0.0, source: arXiv 2505.17730}"
    words = [f"runs=['{TINY}']", f"expected=[{claim}]", "figure=none"]
    start = "from unlearn.cli import evaluate_main, unlearn_main; "
    subprocess.run(
        [sys.executable, "-c", start + "unlearn_main()", *TINY.replace("0,1", "2").split()],
        check=True, capture_output=True,
    )  # fmt: skip
    for count in (2, 0):
        result = subprocess.run(
            [sys.executable, "-c", start + "evaluate_main()", *words],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert (f"command 1 of 1: {count} cells to run" in result.stderr) == bool(count)
        assert "1 number: 1 inside, 0 outside, 0 missing" in result.stdout
    table = (home / "reports" / "claims.csv").read_text().splitlines()
    assert table[1].split(",")[2] == "2"  # two cells, not three
    assert len(list(home.glob("results/*/row-0.json"))) == 3


def test_a_plan_runs_nothing(home):
    words = [f"runs=['{TINY}']", "plan=true", "cost='a second'"]
    start = "from unlearn.cli import evaluate_main; evaluate_main()"
    result = subprocess.run(
        [sys.executable, "-c", start, *words], capture_output=True, text=True, check=True
    )
    assert "2 cells: 0 recorded, 0 running, 2 to run" in result.stdout
    assert "stated cost: a second" in result.stdout
    assert not (home / "results").exists() and not (home / "checkpoints").exists()


def test_wrong_recipes_are_told_in_one_line(home):
    arguments = arguments_of("runs=['method=nothing']")
    with pytest.raises(ConfigError, match="runs: 'method=nothing': unknown method 'nothing'"):
        reproduction.expand_runs(reproduction.read_experiment(arguments), arguments)
    with pytest.raises(ValueError, match="this experiment has no small variant"):
        select_scale({"scale": "small", "small": {}})
    with pytest.raises(ValueError, match="small: unknown colour"):
        select_scale({"scale": "small", "small": {"colour": 1}})
    with pytest.raises(ConfigError, match="scale must be one of full, small"):
        reproduction.read_experiment(arguments_of("scale=tiny"))


def test_the_options_of_the_evaluation_reach_its_runs(home):
    words = [
        f"runs=['{TINY}']",
        "run_options=['seed=5']",
        f"paths.results={home}/other",
        "stack=off",
    ]
    arguments = arguments_of(*words)
    (runs,) = reproduction.expand_runs(reproduction.read_experiment(arguments), arguments)
    assert [cell.content["seed"] for cell in runs.cells] == [5]
    assert runs.cells[0].folder.parent == home / "other"
    assert runs.words[-2:] == (f"paths.results={home}/other", "stack=off")


def test_no_experiment_holds_the_same_number_twice():
    for path in FOLDER.glob("reproduce_*.yaml"):
        content = yaml.safe_load(path.read_text())
        for expected in (content["expected"], (content.get("small") or {}).get("expected", [])):
            lines = [json.dumps(node, sort_keys=True) for node in expected]
            assert len(lines) == len(set(lines)), path.name
