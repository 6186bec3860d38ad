"""Composition, identity and checks of configs; every option explained."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from unlearn.config import composition, help, validation
from unlearn.config import identity as identities
from unlearn.config.command_line import parse_command_line
from unlearn.config.identity import run_id_of_config, to_plain_config
from unlearn.config.options import EXPERIMENTS
from unlearn.config.registration import config_dir
from unlearn.config.schema import SCHEMAS
from unlearn.core import errors

CONF = Path(config_dir())
FOLDERS = [config_dir()]
SILENT = {"_target_", "_partial_", "defaults", "hydra"}
FILES = sorted(p for p in CONF.rglob("*.yaml") if "hydra" not in p.relative_to(CONF).parts)


@pytest.fixture
def hydra() -> Iterator[None]:
    with composition.enable_composition(FOLDERS):
        yield


def made(*overrides: str, name: str = "unlearn") -> DictConfig:
    return composition.compose_config(name, list(overrides), FOLDERS)


def identity(*overrides: str, name: str = "unlearn") -> str:
    return run_id_of_config(made(*overrides, name=name))


def checked(*overrides: str, name: str = "unlearn") -> int:
    return len(composition.check_jobs(name, parse_command_line(list(overrides), name)))


def unexplained(tree: Any, notes: dict[str, str], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        path = f"{prefix}{key}"
        if key in SILENT or path in notes:
            continue
        if isinstance(value, dict):
            yield from unexplained(value, notes, f"{path}.")
        else:
            yield path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_every_leaf_of_every_file_has_a_comment(path: Path):
    text = path.read_text()
    assert list(unexplained(yaml.safe_load(text) or {}, help.read_comments(text))) == []


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_option_of_a_composed_config_is_explained(name: str, hydra: None):
    identity = made(name=name)
    notes = help.explain_options(name, identity.hydra.runtime.choices, FOLDERS)
    assert list(unexplained(composition.resolve_config(identity), notes)) == []


def test_comments_are_read_by_indentation():
    text = "a: 1  # one\nb:\n  c: '#no'  # see\n  d: x#y\ne:\n- 1\nf: [1]  # last\n"
    assert help.read_comments(text) == {"a": "one", "b.c": "see", "f": "last"}


def test_comments_are_inherited_through_the_defaults_list():
    notes = help.read_option_comments("method", "npo", FOLDERS)
    assert notes["gamma"].startswith("accuracy on the forget set")  # from gradient_ascent
    assert "learning rate" in notes["optimizer.lr"]  # from optimizer/sgd
    assert "original" in notes["beta"]  # its own


def test_annotation_keeps_the_yaml():
    text = "a:\n  b: 1\n  c:\n  - 2\nd: 'x: y'\n"
    noted = help.annotate_yaml(text, {"a.b": "one: two", "d": "# last"})
    assert yaml.safe_load(noted) == yaml.safe_load(text)
    assert "b: 1  # one: two" in noted


def test_a_preset_and_a_number_set_the_same_value(hydra: None):
    assert made("discovery_rate=tenth").discovery == made("discovery=0.1").discovery == 0.1
    assert identity("discovery_rate=tenth") == identity("discovery=0.1")


@pytest.mark.parametrize(
    "override",
    [
        "force=true",
        "save_model=false",
        "paths.root=elsewhere",
        "logger=none",
        "trainer.progress=false",
        "trainer.checkpoint_seconds=5",
        "+dataset.cache_dir=elsewhere",
    ],
)
def test_what_does_not_change_a_result_does_not_change_its_name(hydra: None, override: str):
    assert identity(override) == identity()


@pytest.mark.parametrize(
    "override",
    ["seed=1", "seeds.mask=1", "method=npo", "method.beta=2", "corrupted=7", "discovery=0.3"],
)
def test_what_changes_a_result_changes_its_name(hydra: None, override: str):
    assert identity(override) != identity()
    assert re.fullmatch(r"r3-[0-9a-f]{12}", identity(override))


def test_own_seeds_follow_the_seed(hydra: None):
    assert set(to_plain_config(made("seed=3"))["seeds"].values()) == {3}
    assert to_plain_config(made("seed=3", "seeds.data=1"))["seeds"]["data"] == 1


def test_the_folder_bears_the_id(hydra: None):
    config = made()
    assert Path(config.hydra.run.dir).name == run_id_of_config(config) == identity()


def test_columns_to_filter_by_need_no_plus(hydra: None):
    identity = made("where.corruption=poison", "where.discovery=0.5", name="evaluate")
    assert to_plain_config(identity)["where"] == {"corruption": "poison", "discovery": 0.5}
    assert to_plain_config(made("where={method: rem}", name="evaluate"))["where"] == {
        "method": "rem"
    }


@pytest.mark.parametrize(
    "path", sorted((CONF / "experiment").rglob("*.yaml")), ids=lambda p: p.stem
)
def test_every_experiment_composes_on_its_command_alone(path: Path, tmp_path: Path, monkeypatch):
    for name in "abcdefghij":  # an experiment on the user's own images finds class folders
        for split in ("train", "test"):
            (tmp_path / "cifar10" / split / name).mkdir(parents=True)
    monkeypatch.setenv("UNLEARN_DATA", str(tmp_path))
    for name in SCHEMAS:
        if EXPERIMENTS[name] == path.parent.name:
            assert checked(f"experiment={path.stem}", name=name)
        else:
            with pytest.raises(errors.ConfigError, match=rf"={path.stem} belongs to \w+.py, not"):
                checked(f"experiment={path.stem}", name=name)


def test_a_class_that_moves_keeps_its_identity():
    here = {
        "method": {"_target_": "unlearn.methods.npo.NPO", "steps": [{"_target_": "unlearn.a.B"}]}
    }
    there = {"method": {"_target_": "unlearn.other.NPO", "steps": [{"_target_": "unlearn.c.B"}]}}
    assert identities.compute_run_id(here) == identities.compute_run_id(there)
    foreign = [{"method": {"_target_": f"{module}.NPO"}} for module in ("mine", "yours")]
    assert identities.compute_run_id(foreign[0]) != identities.compute_run_id(foreign[1])


def test_a_sweep_is_expanded_as_hydra_does_it():
    sweep = ["method=rem,npo", "seed=range(0,3)", "discovery=choice(0.5,1)"]
    assert checked("--multirun", *sweep) == 2 * 3 * 2


def test_every_point_of_a_sweep_is_checked():
    with pytest.raises(errors.ConfigError, match=r"discovery must be in \(0, 1\], got 1.5"):
        checked("--multirun", "seed=0,1", "discovery=0.5,1.5")


GOOD = [
    ["method.optimizer.lr=1"],
    ["method.optimizer.weight_decay=0"],
    ["method.removal_batch_size=8"],
    ["method.removal_batch_size=null"],
    ["corrupted=1", "discovery=1"],
    ["corrupted=1297", "discovery=1"],
    ["logger.csv=null"],
    ["dataset.augment=null"],
    ["method.epochs=0"],
    ["optimizer@method.optimizer=adam"],
]


@pytest.mark.parametrize("overrides", GOOD, ids=" ".join)
def test_what_is_allowed_passes(overrides: list[str]):
    assert checked(*overrides) == 1


RULES = [
    ("lr", (1e-9, 1), (0, -1, "x", True, None, float("nan"), float("inf"))),
    ("momentum", (0, 0.99), (1, -0.1)),
    ("weight_decay", (0, 0.1), (-1e-9,)),
    ("epochs", (0, 5), (-1, 1.5)),
    ("batch_size", (1,), (0, 2.0)),
    ("flip_rate", (0, 1), (1.01, -0.01)),
    ("test_fraction", (0, 1), (2,)),
    ("beta", (0.1,), (0,)),
    ("gamma", (0, 1), (1.1,)),
    ("num_anything", (1, None), (0, 1.5)),
    ("image_size", (1,), (0,)),
    ("seeds.data", (0,), (-1, 0.5)),
    ("discovery", (1e-6, 1), (0, 1.1)),
    ("corrupted", (0.5, 1, 7.0), (0, 1.5, -1, float("inf"))),
]


@pytest.mark.parametrize(("leaf", "good", "bad"), RULES, ids=lambda v: str(v)[:20])
def test_rules_hold_in_any_group(leaf: str, good: tuple, bad: tuple):
    path = leaf if "." in leaf else f"some.group.of.yours.{leaf}"
    rule = validation.get_rule(path)
    assert rule is not None
    assert all(rule[0](v) for v in good)
    assert not any(rule[0](v) for v in bad)


def test_class_folders_are_counted(tmp_path: Path):
    root = f"dataset.root={tmp_path}"
    with pytest.raises(errors.ConfigError, match="must hold two or more class folders"):
        checked("dataset=imagefolder", root)
    for name in ("train/cat", "train/dog"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(errors.ConfigError, match="holds train alone"):
        checked("dataset=imagefolder", root)
    for name in ("val/cat", "val/dog"):
        (tmp_path / name).mkdir(parents=True)
    assert checked("dataset=imagefolder", root, "corruption.target_class=1")
    with pytest.raises(errors.ConfigError, match=r"must be in 0\.\.1, got 2"):
        checked("dataset=imagefolder", root, "corruption.target_class=2")


def test_nothing_heavy_is_loaded():
    code = (
        "import sys; from unlearn.config import command_line, composition;"
        "composition.check_jobs('unlearn', command_line.parse_command_line(['--multirun', 'method=npo', 'seed=0,1']));"
        "sys.exit(', '.join({'torch', 'lightning', 'pandas'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONF.parent)


def test_rows_are_chosen_by_one_value_or_several():
    assert checked("where.discovery=[0.1,1.0]", "where.method=[rem,npo]", name="evaluate") == 1
    with pytest.raises(errors.ConfigError, match="discovery must be in"):
        checked("discovery=2", name="evaluate")
