"""Options of groups: what does not exist, or belongs to something else, is refused in one line."""

import re
from pathlib import Path

import pytest

from unlearn.config import composition, help
from unlearn.config.command_line import parse_command_line
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core import errors
from unlearn.core.job import chosen_option, describe_discovery


def checked(*words: str, name: str = "unlearn") -> int:
    return len(composition.check_jobs(name, parse_command_line(list(words), name)))


def content(*words: str, name: str = "unlearn") -> dict:
    arguments = parse_command_line(list(words), name)
    composition.check_jobs(name, arguments)
    with composition.enable_composition(arguments.folders):
        return to_plain_config(
            composition.compose_config(name, arguments.overrides, arguments.folders)
        )


REFUSED = [
    ("unlearn", ["pretraining_defaults=nope"], "unknown pretraining_defaults 'nope'; available: "
     "cifar10_folder_resnet9, digits_resnet9$"),
    ("train", ["pretraining_defaults=digits_resnet"], "did you mean 'digits_resnet9'"),
    ("evaluate", ["pretraining_defaults=nope"], "unknown pretraining_defaults 'nope'"),
    ("unlearn", ["method=npo", "method_defaults=npo/digits_resnet"], "mean 'npo/digits_resnet9'"),
    ("unlearn", ["method_defaults@method=nope"], "unknown method_defaults 'nope'"),
    ("unlearn", ["method=npo", "-m", "method_defaults=npo/digits_resnet9,nope"], "'nope'"),
    ("unlearn", ["method_defaults=null"], "method_defaults is left out by ~method_defaults"),
    ("unlearn", ["method=rem", "method_defaults=npo/digits_resnet9"],
     "method_defaults=npo/digits_resnet9 holds options of method=npo, got method=rem; allowed: "
     "rem/cifar10_folder_resnet9, rem/digits_resnet9, rem/digits_resnet9_etd$"),
    ("unlearn", ["-m", "method=npo,rem", "method_defaults=npo/digits_resnet9"], "got method=rem"),
    ("unlearn", ["-m", "seed=0,1", "method=npo,rem", "method_defaults=npo/digits_resnet9,"
     "rem/digits_resnet9"], "holds options of"),
    ("unlearn", ["method=retrain", "method_defaults=npo/digits_resnet9"], "that method has none"),
    ("unlearn", ["experiment=demo_report"],
     "experiment=demo_report belongs to evaluate.py, not to unlearn.py"),
    ("evaluate", ["experiment=demo"], "belongs to unlearn.py, not to evaluate.py"),
    ("train", ["experiment=unlearn/demo"], "belongs to unlearn.py, not to train.py"),
    ("unlearn", ["-m", "experiment=demo,demo_report"], "demo_report belongs to evaluate.py"),
    ("unlearn", ["experiment=dmo"], "unknown experiment 'dmo'; did you mean 'demo'"),
    ("unlearn", ["forget_set=confidence"], "confidence is a detector: discovery=confidence"),
    ("unlearn", ["detector=confidence"], "is chosen by discovery=confidence"),
    ("unlearn", ["discovery=memorization"], "forget_set=memorization is a forget set"),
    ("unlearn", ["discovery=loss", "forget_set=random"],
     "discovery=loss and forget_set=random are both given"),
    ("unlearn", ["discovery=half", "forget_set=iid", "discovery_precision=0.5"],
     "got forget_set=iid"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "expected"), REFUSED, ids=lambda v: str(v)[:40])
def test_a_wrong_choice_costs_one_line(name: str, words: list[str], expected: str):
    with pytest.raises(errors.ConfigError, match=expected) as refusal:
        checked(*words, name=name)
    assert "\n" not in str(refusal.value)


def test_what_is_chosen_by_name_is_merged():
    usual = content("method=npo")
    assert content("method=npo", "method_defaults=npo/digits_resnet9") == usual
    assert content("method=npo", "~method_defaults")["method"]["optimizer"]["lr"] == 0.005
    assert usual["method"]["optimizer"]["lr"] == 0.0273
    etd = content("method=npo", "pretraining=etd")
    assert etd["method"]["optimizer"]["lr"] == 0.00136
    assert content("~pretraining_defaults")["pretraining"]["epochs"] == 41
    assert content()["pretraining"]["epochs"] == 30


def test_candidates_have_the_options_of_their_methods():
    candidates = content("method=auto")["method"]["candidates"]
    assert list(candidates) == ["rem", "gradient_ascent", "npo", "neggrad_plus", "finetune"]
    for name in ("rem", "neggrad_plus", "finetune"):  # tuned for the digits
        assert candidates[name] == content(f"method={name}")["method"], name
    plain = content("method=auto", "~method_defaults")["method"]["candidates"]
    own = content("method=rem", "method_defaults=rem/cifar10_folder_resnet9")["method"]
    assert plain["rem"] == own
    more = content("method=auto", "+method@method.candidates.scrub=scrub")["method"]["candidates"]
    assert more["scrub"] == content("method=scrub", "~method_defaults")["method"]


def test_settings_stay_in_the_search_ranges_of_the_methods():
    rates = content("method=auto")["method"]["rates"]
    assert set(rates) == {"rem", "gradient_ascent", "npo"}
    for name, (low, high) in rates.items():
        text = (Path(config_dir()) / "method" / f"{name}.yaml").read_text()
        assert f"method.optimizer.lr=tag(log, interval({low}, {high}))" in text, name


def test_a_budget_in_retrainings_may_exceed_one():
    assert content("method=auto", "method.budget=2.5")["method"]["budget"] == 2.5
    with pytest.raises(errors.ConfigError, match=r"method.budget must be a number above 0, got 0"):
        checked("method=auto", "method.budget=0")


@pytest.mark.parametrize("key", ["share", "shrink"])
def test_fractions_of_the_repair_are_checked(key: str):
    with pytest.raises(
        errors.ConfigError, match=rf"method.repair.{key} must be in \(0, 1\], got 2"
    ):
        checked("method=rem", f"method.repair.{key}=2")


def test_own_defaults_are_found(tmp_path: Path):
    path = tmp_path / "method_defaults" / "npo" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nmethod:\n  beta: 7.0\n")
    words = ["--config-dir", str(tmp_path), "method=npo", "method_defaults=npo/mine"]
    assert content(*words)["method"]["beta"] == 7
    with pytest.raises(errors.ConfigError, match=r"npo/digits_resnet9_etd, npo/mine$"):
        content(*words[:3], "method_defaults=npo/nope")


def test_an_experiment_is_called_by_its_short_name(tmp_path: Path):
    assert content("experiment=demo") == content("experiment=unlearn/demo")
    assert content("experiment=demo_report", name="evaluate")["figure"] == "corruptions"
    assert checked("-m", "experiment=choice(rem_ga,rem_ideal)") == 2
    assert checked("-m", "experiment=glob(rem_n*)") == 4
    (tmp_path / "experiment" / "report").mkdir(parents=True)
    for place in ("report/mine", "flat"):  # of the user's own, in either folder
        text = "# @package _global_\ntitle: mine\n"
        (tmp_path / "experiment" / f"{place}.yaml").write_text(text)
        words = ["--config-dir", str(tmp_path), f"experiment={Path(place).name}"]
        assert content(*words, name="evaluate")["title"] == "mine"


def test_help_offers_what_can_be_chosen():
    def offered(name: str, *words: str) -> dict[str, str]:
        text = help.format_help(name, parse_command_line(list(words), name))
        lines = re.sub(r"\n {6,}", " ", text.partition("Options (")[0])  # wrapped ones
        return dict(re.findall(r"(?m)^  ([\w@/]+): (.+)$", lines))

    found = offered("unlearn", "method=npo", "experiment=demo")
    assert found["method_defaults"] == (
        "npo/cifar10_folder_resnet9, npo/digits_resnet9*, npo/digits_resnet9_etd"
    )
    assert "demo*" in found["experiment"] and "demo_report" not in found["experiment"]
    assert "half*" in found["discovery"] and "cleanlab" in found["discovery"]
    assert "cleanlab" not in found["forget_set"]
    old = {"recipe", "tuned", "scores", "candidates", "diagnose", "discovery_rate", "held_out"}
    assert not old & set(found)
    assert {"pretraining_defaults", "auto_methods"} <= set(found)
    other = offered("evaluate")
    assert {"compare_scores", "diagnosis"} <= set(other) and not old & set(other)
    assert other["experiment"].startswith("demo_report, ")
    assert "cleanlab*" in offered("unlearn", "discovery=cleanlab")["discovery"]


def test_a_score_that_needs_held_out_images_holds_them_out():
    assert content("score=holdout_retraining")["validation"] == 0.1
    assert content("score=holdout_retraining", "validation=0.2")["validation"] == 0.2
    assert content("compare_scores=all", name="evaluate")["validation"] == 0.1
    assert content()["validation"] is None


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """Return the words for a detector and a forget set whose classes have names of any kind."""
    texts = {
        "detector/mine": "defaults:\n  - cleanlab\n  - _self_\n_target_: elsewhere.Discovered\n",
        "forget_set/all": "_target_: far.detection.away.Undiscovered\n",
        "forget_set/joint": "defaults:\n  - discovered\n  - _self_\n_target_: mine.Joint\n",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return ["--config-dir", str(tmp_path)]


def test_a_detector_is_known_by_its_group_not_by_its_class(own: list[str]):
    made = content(*own, "discovery=mine")
    assert describe_discovery(made) == chosen_option(made, "detector") == "mine"
    assert made["forget_set"]["num_folds"] == 5 and "nested" not in made["forget_set"]
    with pytest.raises(errors.ConfigError, match=r"discovery=0.5 and a detector \(mine\)"):
        checked(*own, "discovery=mine", "discovery=0.5")
    with pytest.raises(errors.ConfigError, match=r"a detector \(.*, mine, .*\), got yours"):
        checked(*own, "discovery=yours")


def test_a_simulated_discovery_is_known_by_its_option_not_by_its_class(own: list[str]):
    assert checked(*own, "forget_set=all", "corruption=none") == 1
    assert checked(*own, "forget_set=all", "discovery=0.5") == 1
    assert checked(*own, "forget_set=joint", "discovery_precision=0.5") == 1
    with pytest.raises(errors.ConfigError, match="corruption must not be none"):
        checked(*own, "forget_set=joint", "corruption=none")
    with pytest.raises(errors.ConfigError, match="discovery must be a number"):
        checked(*own, "forget_set=joint", "discovery=null")


def test_images_held_out_of_a_training_need_a_training(tmp_path: Path):
    model = tmp_path / "model.pt"
    model.write_bytes(b"0\n")
    words = [f"checkpoint={model}", "forget_set=file", f"forget_set.path={model}", "method=anp"]
    words += ["corruption=none"]
    assert checked(*words, "trusted=clean_rows") == 1
    with pytest.raises(errors.ConfigError, match="trusted=held_out takes images out of"):
        checked(*words, "trusted=held_out")


def test_a_trusted_set_is_part_of_a_run_and_none_is_not():
    usual, made = content(), content("trusted=clean_rows")
    assert usual["trusted"] is None and usual["chosen"]["trusted"] == "none"
    assert compute_run_id(usual) == compute_run_id(
        {k: v for k, v in usual.items() if k != "trusted"}
    )
    assert compute_run_id(made) != compute_run_id(usual)
    seeds = usual["seeds"] | {"trusted": 7}  # it acts through trusted.seed alone
    assert compute_run_id(usual | {"seeds": seeds}) == compute_run_id(usual)
    assert compute_run_id(content("trusted=clean_rows", "seeds.trusted=7")) != compute_run_id(made)


def test_a_label_does_not_hide_what_was_chosen():
    with pytest.raises(errors.ConfigError, match="corruption must not be none"):
        checked("corruption=none", "names.corruption=clean")


def test_a_folder_of_images_counts_and_a_place_to_download_to_does_not():
    usual = content("dataset=cifar10")
    moved = content("dataset=cifar10", "dataset.root=elsewhere")
    assert compute_run_id(moved) == compute_run_id(usual)
    own = {**usual, "dataset": {"_target_": "mine.Photos", "root": "here"}}
    other = {**own, "dataset": own["dataset"] | {"root": "there"}}
    assert compute_run_id(own) != compute_run_id(other)


def test_options_that_came_later_leave_ids_as_they_were():
    usual = content("model=timm", "model.name=resnet18")
    assert usual["model"].pop("pretrained") is False
    assert compute_run_id(usual) == compute_run_id(content("model=timm", "model.name=resnet18"))
    other = content("model=timm", "model.name=resnet18", "model.pretrained=true")
    assert compute_run_id(other) != compute_run_id(usual)


def test_a_pretrained_network_sets_its_input_unless_it_is_given():
    pytest.importorskip("timm")
    words = ["dataset=cifar10", "model=timm_pretrained", "model.name=test_resnet"]
    data = content(*words)["dataset"]
    assert (data["mean"], data["std"], data["image_size"]) == ([0.5] * 3, [0.5] * 3, 160)
    data = content(*words, "dataset.mean=[0,0,0]", "dataset.image_size=32")["dataset"]
    assert (data["mean"], data["std"], data["image_size"]) == ([0, 0, 0], [0.5] * 3, 32)
    with pytest.raises(errors.ConfigError, match=r"^model.name is missing"):
        content("model=timm_pretrained")


def test_the_names_of_choices_are_no_part_of_a_run():
    made = content("method=rum")
    assert made["chosen"]["base"] == "finetune"
    assert compute_run_id(made | {"chosen": {}}) == compute_run_id(made)


def test_no_option_of_an_old_name_is_left():
    left = {p.name for p in Path(config_dir()).iterdir()}
    assert not left & {"recipe", "tuned", "scores", "candidates", "diagnose", "held_out"}
