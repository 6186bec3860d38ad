"""Wrong input that is refused before torch is imported: one line, exit code 2, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn.config import composition
from unlearn.config.class_flags import read_class_flag
from unlearn.config.command_line import parse_command_line
from unlearn.core import errors

REPOSITORY = Path(__file__).resolve().parents[2]
NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise AssertionError("torch is imported")
sys.meta_path.insert(0, Refuse())
from unlearn.cli import unlearn_main
unlearn_main()
"""
FOLDER = ["dataset=imagefolder", "corruption=none", "forget_set=file"]
REFUSED = [
    (["forget_set=file", "forget_set.path=nope.csv"], "must be a file, got nope.csv"),
    (["forget_set=file", "forget_set.path=utf16.csv"], "utf16.csv is UTF-16; save it as UTF-8"),
    (["forget_set=file", "forget_set.path=blank.csv"], "forget_set.path: blank.csv names no image"),
    (["corruption=noisy_labels", "corruption.path=nope.csv"], "corruption.path must be a file, got"),
    (["localization=salun"], "unknown localization 'salun'; did you mean 'salloc'"),
    (["localization=salloc"], "method=rem changes the network's shape, so it cannot be localized"),
    (["localization=salloc", "method=npo"], "budget is missing: localization=salloc needs"),
    (["localization=deepest", "method=npo"], "budget is missing: localization=deepest needs"),
    (["localization=salloc", "method=del", "budget=0.1"], "method=del has its own localization"),
    (["localization=salloc", "method=rum", "budget=0.1"], "method=rum runs other methods"),
    (["method=npo", "budget=0.1"], "budget needs a localization, such as localization=salloc"),
    (["method=npo", "localization=saved", "localization.path=nope.pt"], "a mask, got nope.pt"),
    (["method=npo", "localization=salloc", "budget=0.1", "mask_head=no"], "mask_head must be null"),
    (["corruption=poison", "checkpoint=bad.csv", "forget_set=file", "forget_set.path=bad.csv"],
     "corruption must be none with your own checkpoint"),
    (["+foo=1"], "unknown key 'foo'; did you mean 'force'?"),
    (["+trainer.foo=1"], "unknown key 'trainer.foo'"),
    (["method", "=", "rem"], "write method=rem without spaces around '='"),
    (["method=", "rem"], "write method=rem without spaces around '='"),
    (["method", "=rem"], "write method=rem without spaces around '='"),
    (["method"], "'method' is not an option: options are written key=value"),
    (["forget_set.path=bad.csv"], "it is an option of forget_set=file: add forget_set=file"),
    (["trainer.devices=5"], "trainer.devices=5 needs several processes: trainer=ddp"),
    ([*FOLDER, "dataset.root=photos", "forget_set.path=bad.csv"],
     "dataset.root: empty class folder: photos/train/cat;"),
    (["method=anp"], "method=anp needs a trusted set, images known to be right: trusted=clean_rows,"),
    (["method=sap", "method.source=trusted"], "method=sap needs a trusted set"),
    (["method=rum", "method@method.steps.low=nad"], "method=rum needs a trusted set"),
    (["-sc", "install=csh"], "one of bash, zsh, fish, got 'install=csh'"),
    (["--help", "trainr"], "--help trainr: not a group of options; did you mean 'trainer' or 'pretraining'; --help all"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), REFUSED, ids=lambda v: " ".join(v)[:50])
def test_is_refused_in_one_line_without_torch(tmp_path: Path, words: list[str], expected: str):
    (tmp_path / "bad.csv").write_text("1\n2\n")
    (tmp_path / "utf16.csv").write_text("1\n2\n", encoding="utf-16")
    (tmp_path / "blank.csv").write_text("\n")
    for name in ("train/ant", "train/bee", "test/ant", "test/bee", "train/cat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        if name != "train/cat":
            (tmp_path / "photos" / name / "0.png").touch()
    before = sorted(tmp_path.rglob("*"))
    result = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *words], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("error: ") and expected in result.stderr
    assert result.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dashboard_without_its_logger_is_refused_by_the_config_alone():
    with pytest.raises(errors.ConfigError, match="dashboard=true needs logger=wandb"):
        composition.check_jobs("evaluate", parse_command_line(["dashboard=true"], "evaluate"))
    words = ["dashboard=true", "logger=wandb"]
    assert len(composition.check_jobs("evaluate", parse_command_line(words, "evaluate"))) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["trainer=ddp", "trainer.devices=5"],
        ["method=npo", "localization=salloc", "budget=0.1", "mask_head=only"],
        ["method=npo", "localization=deepest", "localization.num_layers=2"],
        ["method=npo", "localization=critical_memorization"],
        ["method=rem", "+optimizer@method.removal_optimizer=normalized_sgd", "~method_defaults"],
        ["method=rft", "budget=0.2", "localization=salloc"],
    ],
    ids=" ".join,
)
def test_right_input_passes(words: list[str]):
    assert len(composition.check_jobs("unlearn", parse_command_line(words))) == 1


def test_the_trainer_of_a_user_may_have_several_devices(tmp_path: Path):
    path = tmp_path / "trainer" / "four.yaml"
    path.parent.mkdir()
    path.write_text("defaults:\n  - default\n  - _self_\ndevices: 4\n")
    words = ["--config-dir", str(tmp_path), "trainer=four"]
    assert len(composition.check_jobs("unlearn", parse_command_line(words))) == 1
    with pytest.raises(errors.ConfigError, match=r"unknown key 'method.size'"):
        composition.check_jobs("unlearn", parse_command_line(["method.size=3"]))


def test_flags_read_from_source_are_those_of_the_classes():
    from hydra.utils import get_class

    for name in ("rem.REM", "etd.ETD", "npo.NPO", "rft.RFT", "salun.SalUn", "original.Original"):
        target = f"unlearn.methods.{name}"
        made = get_class(target)
        for flag in ("localizable", "has_localization", "head"):
            assert read_class_flag(target, flag) == getattr(made, flag), (name, flag)
    assert read_class_flag("mine.Method", "localizable") is None
    assert read_class_flag("unlearn.methods.nowhere.Method", "localizable") is None
