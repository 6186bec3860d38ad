"""Studies: ranges, cells, trials on disk, and the file that comes out."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from unlearn.config.command_line import Arguments
from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import run_id_of_config, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.errors import ConfigError
from unlearn.core.job import Job
from unlearn.core.types import ImageSet
from unlearn.data.task import Task
from unlearn.orchestration.cells import run_lock
from unlearn.orchestration.tuning.files import (
    describe_value,
    find_changes,
    format_trials,
    format_tuned_file,
)
from unlearn.orchestration.tuning.plan import StudyPlan
from unlearn.orchestration.tuning.scored_tasks import (
    ScoreParts,
    make_held_out_task,
    split_forget_set,
)
from unlearn.orchestration.tuning.search_space import (
    Choice,
    Constant,
    FloatRange,
    IntRange,
    parse_range,
)
from unlearn.orchestration.tuning.study import (
    NUM_STARTUP_TRIALS,
    FinishedTrial,
    list_finished_trials,
    open_study,
    run_free_trials,
    select_best_trial,
)
from unlearn.orchestration.tuning.tune_job import tune_job
from unlearn.pipeline.context import RunContext
from unlearn.training.engine import Engine

CONF = Path(config_dir())
REPOSITORY = CONF.parent
SEARCHED = [
    p.stem for p in sorted((CONF / "method").glob("*.yaml")) if "\nsearch:" in p.read_text()
]
TUNE = {
    "trials": 2, "corruptions": ["random_label"], "discoveries": [0.5], "seed": 100,
    "prune": False, "folder": "unused",
}  # fmt: skip
SMALL = (
    "dataset=synthetic", "model.width=2", "pretraining.epochs=1", "method=finetune",
    "tune.corruptions=[random_label]", "tune.discoveries=[0.5]",
)  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("method.a=choice(x, y)", Choice("method.a", ("x", "y"))),
        ("method.a=choice(null, 16)", Choice("method.a", ("null", "16"))),
        ("method.a=null,16", Choice("method.a", ("null", "16"))),
        ("schedule@method.s=choice(a, b)", Choice("schedule@method.s", ("a", "b"))),
        ("+optimizer@method.o=sgd", Constant("+optimizer@method.o", "sgd")),
        ("method.a=0.5", Constant("method.a", "0.5")),
        ("method.a=interval(1, 10)", FloatRange("method.a", 1.0, 10.0, None, False)),
        ("method.a=tag(log, interval(0.1, 10))", FloatRange("method.a", 0.1, 10.0, None, True)),
        ("method.a=tag(int, interval(1, 10))", IntRange("method.a", 1, 10, 1, False)),
        ("method.a=tag(log, int, interval(1, 10))", IntRange("method.a", 1, 10, 1, True)),
        ("method.a=int(interval(1, 10))", IntRange("method.a", 1, 10, 1, False)),
        ("method.a=range(1, 10, 4)", IntRange("method.a", 1, 9, 4, False)),
        ("method.a=range(0, 1, 0.25)", FloatRange("method.a", 0.0, 0.75, 0.25, False)),
        ("method.a=range(5, 1, -2)", IntRange("method.a", 3, 5, 2, False)),
    ],
)
def test_every_kind_of_range_is_read(entry: str, expected: object):
    assert parse_range(entry) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("method.a=interval(3, 1)", "low <= high"),
        ("method.a=tag(log, interval(0, 1))", "0 < low <= high"),
        ("method.a=tag(log, range(1, 9, 2))", "no step"),
        ("method.a=range(1, 1)", "low <= high"),
        ("method.a=choice()", "cannot read 'method.a=choice()'"),
        ("method.a=glob(*)", "cannot read"),
        ("method.a", "cannot read"),
        ("corruption=poison", "a key under method"),
        ("~method.a", "a key under method"),
    ],
)
def test_a_wrong_range_is_refused(entry: str, expected: str):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        parse_range(entry)


def test_settings_are_drawn_as_overrides_within_the_ends():
    trial = optuna.trial.FixedTrial({"method.a": 0.0123456, "method.b": 3, "method.c": "null"})
    assert (
        parse_range("method.a=tag(log, interval(0.001, 1))").suggest_override(trial)
        == "method.a=0.0123"
    )
    assert parse_range("method.b=range(1, 9)").suggest_override(trial) == "method.b=3"
    assert parse_range("method.c=choice(null, 1)").suggest_override(trial) == "method.c=null"
    assert parse_range("+method.d=5").suggest_override(trial) == "+method.d=5"
    edge = optuna.trial.FixedTrial({"method.a": 0.12344})
    assert parse_range("method.a=interval(0.12344, 1)").suggest_override(edge) == "method.a=0.12344"


def plan(*overrides: str, folder: str | None = None) -> StudyPlan:
    folders = [config_dir(), *([folder] if folder else [])]
    return StudyPlan(Arguments(list(overrides), False, False, None, folders), TUNE)


@pytest.mark.parametrize("method", SEARCHED)
def test_settings_of_every_method_with_ranges_build(method: str):
    made = plan(f"method={method}", "dataset=synthetic", "model.width=2")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        overrides = [r.suggest_override(study.ask()) for r in made.search_ranges]
        node = made.compose_setting(overrides).content["method"]
        instantiate(node, _convert_="all")
        file = format_tuned_file(find_changes(node, made.lower_method_nodes(), []), {}, "a test")
        below = made.lower_method_nodes()[0]
        above = OmegaConf.merge(below, yaml.safe_load(file))
        assert OmegaConf.to_container(above, resolve=True) == node


def test_what_the_command_line_sets_is_not_searched():
    asked = ["method=finetune", "method.epochs=4", "schedule@method.schedule=constant"]
    keys = [r.key for r in plan(*asked).search_ranges]
    assert "method.batch_size" in keys
    assert not {"method.epochs", "schedule@method.schedule"} & set(keys)
    node = plan(*asked).compose_setting([]).content["method"]
    assert node["epochs"] == 4
    assert (
        find_changes(node, plan(*asked).lower_method_nodes(), [])["epochs"] == 4
    )  # so was it tuned


def test_a_study_with_nothing_to_try_is_refused():
    asked = ["method.search=['method.epochs=5']"]
    with pytest.raises(ConfigError, match="search space is empty"):
        _ = plan("method=finetune", *asked).search_ranges


@pytest.mark.parametrize("override", ["seed=3", "corruption=poison", "seeds.mask=1", "discovery=1"])
def test_a_study_goes_over_cells_of_its_own(override: str):
    with pytest.raises(ConfigError, match="a study defines its own tasks: set tune"):
        plan("method=rem", override)


def test_a_method_without_ranges_is_refused():
    with pytest.raises(ConfigError, match="method=original has no search space"):
        _ = plan("method=original").search_ranges


def test_tuned_values_are_no_part_of_a_setting_and_the_study_is_named_by_what_counts():
    assert plan("method=finetune").compose_setting([]).content["method"]["batch_size"] == 512
    assert [c.content["seed"] for c in plan("method=rem").compose_cells()] == [100]
    usual = plan("method=finetune").study_folder
    assert plan("method=finetune", "tune.trials=9", "force=true").study_folder == usual
    assert plan("method=finetune", "model.width=3").study_folder != usual
    assert plan("method=finetune", "method.epochs=3").study_folder != usual


def test_an_absent_optuna_is_named_with_its_extra(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"pip install 'unlearn-bench\[tune\]'"):
        tune_job(Job({}, "r", tmp_path, {}, instantiate))


def test_a_study_is_no_part_of_a_runs_identity():
    with enable_composition([config_dir()]):
        ids = {
            run_id_of_config(compose_config("unlearn", o, [config_dir()]))
            for o in ([], ["tune.trials=24", "tune.seed=3"])
        }
        folder = compose_config("unlearn", ["tune.trials=24"], [config_dir()]).hydra.run.dir
    assert len(ids) == 1
    assert re.fullmatch(rf"tune-\d+-{ids.pop()}", Path(folder).name)  # not the run's folder


# --- cells ------------------------------------------------------------------------------------


def test_a_forget_set_is_split_in_two():
    found = torch.tensor([3, 5, 8, 9, 12])
    given, held = split_forget_set(found, 0)
    assert (len(given), len(held)) == (2, 3)
    assert torch.cat([given, held]).sort().values.equal(found)
    assert not split_forget_set(torch.arange(99), 1)[0].equal(
        split_forget_set(torch.arange(99), 0)[0]
    )
    with pytest.raises(ValueError, match="at least two samples"):
        split_forget_set(found[:1], 0)


def scored(task: Task, network: torch.nn.Module, engine: Engine) -> ScoreParts:
    node = plan("method=finetune", "dataset=synthetic").compose_setting(["method.batch_size=32"])
    job = Job({}, "r", Path("."), {}, lambda n: instantiate(n, _convert_="all"))

    class Augmented:
        augment = None

    setting = RunContext(job, Augmented(), task, engine, "")
    return make_held_out_task("a cell", setting, task, network, 100).score_method(
        job, node.content["method"]
    )


def test_the_other_half_plays_the_hidden_part(task: Task, network, engine: Engine):
    cell = make_held_out_task(
        "a cell", RunContext(None, None, task, engine, ""), task, network, 100
    )
    request = cell.task.request()
    inside = request.retain.index
    assert torch.isin(cell.score.listed.index, inside).all()  # stays, as the hidden do
    assert not torch.isin(request.forget.index, torch.cat([inside, cell.score.retain.index])).any()
    assert not torch.isin(cell.score.listed.index, cell.score.retain.index).any()
    assert cell.score.listed.label.equal(
        task.train.label[cell.score.listed.index]
    )  # as training saw them
    assert len(cell.score.listed) + len(request.forget) == len(task.forget_indices())


def test_no_score_depends_on_truth_or_test_images(
    task: Task, clean: tuple[ImageSet, ImageSet], network, engine: Engine
):
    truth = replace(
        task.truth,
        clean_label=task.truth.clean_label.flip(0),
        corrupted=task.truth.corrupted.flip(0),
    )
    test = replace(clean[1], image=255 - clean[1].image, label=clean[1].label.flip(0))
    lie = replace(task, truth=truth, test=test)
    honest = scored(task, network, engine)
    assert honest == scored(lie, network, engine)
    label = task.train.label.clone()
    label[task.forget_indices()] = (label[task.forget_indices()] + 1) % 3
    other = replace(task, train=replace(task.train, label=label))
    assert honest != scored(other, network, engine)  # what is seen does count
    assert 0 < honest.value < 1


# --- trials on disk -----------------------------------------------------------------------------

RANGES = [parse_range("method.a=interval(0, 1)"), parse_range("method.b=choice(x, y)")]


def calls(overrides) -> dict[str, Callable[[], ScoreParts]]:
    value = float(overrides[0].partition("=")[2])
    return {
        name: lambda: ScoreParts(kept=value, healed=0.5) for name in ("one", "two", "three", "four")
    }


def test_the_budget_is_met_and_extended(tmp_path: Path):
    study = open_study(tmp_path, prune=False)
    first = list(run_free_trials(tmp_path, study, RANGES, calls, trials=3, seed=1))
    assert [t.place for t in first] == [0, 1, 2]
    again = open_study(tmp_path, prune=False)
    assert list(run_free_trials(tmp_path, again, RANGES, calls, trials=3, seed=1)) == []
    assert [t.place for t in run_free_trials(tmp_path, again, RANGES, calls, trials=5, seed=1)] == [
        3,
        4,
    ]
    assert list_finished_trials(again)[:3] == first
    assert select_best_trial(list_finished_trials(again)).score == max(
        t.score for t in list_finished_trials(again)
    )
    assert select_best_trial(list_finished_trials(again)).score == pytest.approx(
        max(float(t.overrides[0].partition("=")[2]) for t in list_finished_trials(again)) / 2
    )


def test_a_study_in_parts_draws_what_one_at_a_stretch_does(tmp_path: Path):
    trials = NUM_STARTUP_TRIALS + 3  # past the first that are drawn at random
    whole = open_study(tmp_path / "whole", prune=False)
    drawn = [
        t.overrides
        for t in run_free_trials(tmp_path / "whole", whole, RANGES, calls, trials=trials, seed=1)
    ]
    parts = []
    for stop in (3, NUM_STARTUP_TRIALS + 1, trials):
        study = open_study(tmp_path / "parts", prune=False)
        abandoned = study.ask()  # as by a process that was killed
        abandoned.set_user_attr("place", stop - 1)
        done = run_free_trials(tmp_path / "parts", study, RANGES, calls, trials=stop, seed=1)
        parts += [t.overrides for t in done]
    assert parts == drawn
    states = [t.state.name for t in study.get_trials()]
    assert (states.count("COMPLETE"), states.count("FAIL")) == (trials, 3)


def test_a_failed_trial_is_no_part_of_the_budget(tmp_path: Path):
    study = open_study(tmp_path, prune=False)

    def broken(overrides):
        raise ValueError("no such setting")

    with pytest.raises(ValueError, match="no such setting"):
        list(run_free_trials(tmp_path, study, RANGES, broken, trials=2, seed=1))
    assert list_finished_trials(study) == []
    assert len(list(run_free_trials(tmp_path, study, RANGES, calls, trials=2, seed=1))) == 2


def test_hopeless_trials_are_pruned_only_when_asked(tmp_path: Path):
    for prune in (False, True):
        folder, asked = tmp_path / str(prune), iter(range(99))

        def worse(overrides, asked=asked) -> dict[str, Callable[[], ScoreParts]]:
            value = 1 / (1 + next(asked))
            return {name: lambda: ScoreParts(kept=value, healed=0.5) for name in "abcd"}

        study = open_study(folder, prune=prune)
        done = list(
            run_free_trials(folder, study, RANGES, worse, trials=NUM_STARTUP_TRIALS + 2, seed=3)
        )
        assert any(t.pruned for t in done) is prune
        assert all(len(t.scores) == 4 for t in done if not t.pruned)
        assert all(len(t.scores) < 4 for t in done if t.pruned)
        assert not select_best_trial(done).pruned


def test_a_line_that_a_crash_cut_is_no_harm(tmp_path: Path):
    study = open_study(tmp_path, prune=False)
    before = list(run_free_trials(tmp_path, study, RANGES, calls, trials=2, seed=1))
    with (tmp_path / "journal.log").open("a") as file:
        file.write('{"op_code":4,"worker_id":"a')
    again = open_study(tmp_path, prune=False)
    assert len(list(run_free_trials(tmp_path, again, RANGES, calls, trials=3, seed=1))) == 1
    assert list_finished_trials(open_study(tmp_path, prune=False))[:2] == before


# --- the file -----------------------------------------------------------------------------------

LINEAR = {"_target_": "Linear", "warmup": 0.2, "stretch": 1}
SGD = {"_target_": "SGD", "_partial_": True, "lr": 0.1, "momentum": 0.9}
BASE = {"_target_": "F", "epochs": 3, "optimizer": SGD, "schedule": LINEAR, "other": None}


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 5},
        {"schedule": {"_target_": "Constant"}},  # has fewer keys than what is below
        {"optimizer": {"_target_": "Adam", "lr": 1e-05, "betas": [0.9, 0.99], "foreach": None}},
        {"other": SGD},
        {"optimizer": SGD | {"_target_": "Normalized", "lr": 0.03}},
        {"epochs": None},
    ],
)
def test_a_file_gives_its_setting_on_all_that_it_may_meet(change: dict):
    chosen = BASE | change
    grounds = [BASE, BASE | {"epochs": 8, "schedule": LINEAR | {"stretch": 2}}]
    file = format_tuned_file(find_changes(chosen, grounds, ["epochs", "schedule"]), {}, "a test")
    for below in grounds:
        both = OmegaConf.merge(below, yaml.safe_load(file))
        assert OmegaConf.to_container(both, resolve=True) == chosen


def test_the_table_of_trials_has_no_formulas():
    setting = ("method.a=-0.5", "method.b=-x", "+method.c==1")
    scores = {"one": ScoreParts(kept=0.5, healed=0.5)}
    text = format_trials([FinishedTrial(0, 0.25, False, setting, scores, 1.0)])
    (row,) = csv.DictReader(text.splitlines())
    assert (row["method.a"], row["method.b"], row["'+method.c"]) == ("-0.5", "'-x", "'=1")


def test_a_setting_that_changes_nothing_leaves_the_method_alone():
    both = OmegaConf.merge({"method": BASE}, yaml.safe_load(format_tuned_file({}, {}, "a test")))
    assert OmegaConf.to_container(both) == {"method": BASE}


def test_searched_options_are_stated_even_at_their_default():
    assert find_changes(BASE, [BASE], ["epochs", "schedule"]) == {"epochs": 3, "schedule": LINEAR}
    assert find_changes(BASE, [BASE], ["optimizer.lr"]) == {"optimizer": {"lr": 0.1}}


def test_a_comment_says_what_and_drops_the_source_of_another_value():
    assert describe_value("images per step; 980 steps (arXiv 1)", 64) == "images per step; tuned"
    assert describe_value("loss: ce (arXiv 1), dpo", "ce") == "loss: ce, dpo; tuned"
    assert describe_value(None, 1) == "tuned"


def test_a_file_of_another_pretraining_is_merged_over_the_standard_one(tmp_path: Path):
    def method(*overrides: str) -> dict:
        with enable_composition([config_dir(), str(tmp_path)]):
            found = compose_config(
                "unlearn", ["method=finetune", *overrides], [config_dir(), str(tmp_path)]
            )
            return to_plain_config(found)["method"]

    made = plan("method=finetune", "pretraining=etd", folder=str(tmp_path))
    assert made.file_stem == "digits_resnet9_finetune_etd"
    assert plan("method=finetune").file_stem == "digits_resnet9_finetune"
    standard = method()
    assert method("pretraining=etd") == standard  # there is none of its own yet
    node = made.compose_setting(["method.epochs=7", "schedule@method.schedule=constant"]).content[
        "method"
    ]
    tree = find_changes(node, made.lower_method_nodes(), ["epochs", "schedule"])
    path = tmp_path / made.option_path
    path.parent.mkdir(parents=True)
    path.write_text(format_tuned_file(tree, {}, "a test"))
    assert method("pretraining=etd") == node != standard
    assert method() == standard


# --- the command --------------------------------------------------------------------------------


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "unlearn.py", *SMALL, *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"UNLEARN_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def study(home: Path, *arguments: str) -> str:
    process = start(home, *arguments)
    _, lines = process.communicate(timeout=120)
    assert process.returncode == 0, lines
    return lines


def rows(home: Path) -> dict[str, dict[str, str]]:
    (path,) = home.glob("tuning/studies/*/trials.csv")
    with path.open() as file:
        found = {row["trial"]: row for row in csv.DictReader(file)}
    return {k: {c: v for c, v in r.items() if c != "seconds"} for k, r in found.items()}


def test_a_study_writes_a_file_that_later_runs_find_and_is_not_repeated(tmp_path: Path):
    lines = study(tmp_path, "tune.trials=2")
    assert len(re.findall(r"(?m)^synthetic_resnet9_finetune trial [12]/2: 0\.", lines)) == 2
    assert f"add --config-dir {tmp_path}/tuning" in lines
    assert (tmp_path / "tuning/studies/progress.png").read_bytes().startswith(b"\x89PNG")
    path = tmp_path / "tuning/method_defaults/finetune/synthetic_resnet9.yaml"
    content = path.read_text()
    assert content.startswith("# @package method\n# tuned: python unlearn.py dataset=synthetic")
    assert "tune.trials=2" in content and "(2 settings, score 0." in content
    assert all("# " in line or line.endswith(":") or "_: " in line for line in content.splitlines())
    folders = [config_dir(), str(tmp_path / "tuning")]
    with enable_composition(folders):
        found = to_plain_config(compose_config("unlearn", SMALL[:4], folders))["method"]
    assert 0.005 <= found["optimizer"]["lr"] <= 0.8
    assert found["epochs"] in (3, 5, 10, 15) and found["batch_size"] in (32, 64, 128)
    trials = rows(tmp_path)
    top = max(trials.values(), key=lambda row: float(row["score"]))
    assert float(top["method.optimizer.lr"]) == found["optimizer"]["lr"]
    assert not list(tmp_path.glob("results/*"))  # no run, no row, no folder

    again = study(tmp_path, "tune.trials=2")
    assert " trial " not in again and "best of 2 settings" in again
    assert path.read_text() == content and rows(tmp_path) == trials


def test_a_killed_study_keeps_what_is_finished_and_goes_on(tmp_path: Path):
    process = start(tmp_path, "tune.trials=4")
    assert process.stderr is not None
    for line in process.stderr:
        if " trial 2/4" in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (journal,) = (tmp_path).glob("tuning/studies/*/journal.log")
    before = rows(tmp_path)
    assert {"1", "2"} <= set(before) < {"1", "2", "3", "4"}
    lines = study(tmp_path, "tune.trials=4")
    assert len(re.findall(" trial ", lines)) == 4 - len(before)
    after = rows(tmp_path)
    assert sorted(after) == ["1", "2", "3", "4"]
    assert {k: after[k] for k in before} == before
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_folders_of_killed_studies_are_removed_at_the_next_start(tmp_path: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()  # its id is free now
    results = tmp_path / "results"
    left, told, other, held = (
        results / f"tune-{pid}-{name}"
        for pid, name in (
            (ended.pid, "left"),
            (ended.pid, "told"),
            (os.getpid(), "other"),
            (ended.pid, "held"),
        )
    )
    for folder in (left, told, other, held, results / "tune-up-mine"):
        (folder / ".hydra").mkdir(parents=True)
    (told / "error.txt").write_text("KeyError: 'x'")
    with run_lock(held):  # as of another machine
        lines = study(tmp_path, "tune.trials=1")
    assert f"removed {left}" in lines
    assert {p.name for p in results.iterdir()} == {
        told.name, other.name, held.name, "tune-up-mine",
    }  # fmt: skip


def test_two_processes_share_the_budget(tmp_path: Path):
    both = [start(tmp_path, "tune.trials=5", "tune.discoveries=[0.3,0.5,1.0]") for _ in range(2)]
    output = [p.communicate(timeout=180)[1] for p in both]
    assert [p.returncode for p in both] == [0, 0], output
    worked = [len(re.findall(" trial ", lines)) for lines in output]
    assert sum(worked) == 5 and min(worked) > 0, output
    assert sorted(rows(tmp_path)) == ["1", "2", "3", "4", "5"]
    assert any("best of 5 settings" in lines for lines in output)
    (journal,) = tmp_path.glob("tuning/studies/*/journal.log")
    states = [t.state for t in open_study(journal.parent, prune=False).get_trials()]
    assert states == [optuna.trial.TrialState.COMPLETE] * 5


def test_jobs_of_a_sweep_have_the_same_budget(tmp_path: Path):
    lines = study(tmp_path, "--multirun", "method=finetune,npo", "tune.trials=1")
    for method in ("finetune", "npo"):
        assert len(re.findall(rf"(?m)^synthetic_resnet9_{method} trial 1/1", lines)) == 1
        made = tmp_path / "tuning" / "method_defaults" / method / "synthetic_resnet9.yaml"
        assert made.is_file()
