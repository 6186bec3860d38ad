"""The documentation site builds without a warning; every method has its page; nothing is fetched."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from unlearn.config.composition import compose_config, enable_composition, resolve_config
from unlearn.config.registration import config_dir
from unlearn.reporting.tables.advice import load_shipped_plane

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_site_builds_strictly_and_stands_alone(tmp_path: Path):
    site = tmp_path / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=REPOSITORY, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    names = {p.stem for p in (REPOSITORY / "conf" / "method").glob("*.yaml")}
    assert {p.stem for p in (site / "methods").glob("*.html")} == names | {"index"}
    page = (site / "methods" / "npo.html").read_text()
    assert (
        "inverse temperature of the loss difference to the original model" in page
    )  # from the YAML
    assert "2404.05868" in page  # from the docstring
    assert page.count("<math") >= 2  # its formula and the symbols
    product = load_shipped_plane().set_index(["method", "corruption"])["healed_utility"]
    rows = re.findall(r"<td>poison</td>(.*?)</tr>", page, re.DOTALL)
    assert f"{product['npo', 'poison'].iloc[7:].mean():.2f}</td>" in rows[0]  # rates 0.8 to 1
    for name in names:
        text = (site / "methods" / f"{name}.html").read_text()
        article = text.partition("<article")[2].partition("</article>")[0]
        assert "\\" not in article, name  # of LaTeX or Markdown that stayed as it was
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', path.read_text()
        )
        assert loaded == [], path


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", REPOSITORY / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    return {k: v for key, part in node.items() for k, v in leaves(part, f"{path}.{key}").items()}


@pytest.mark.parametrize("name", ["npo", "rem", "del", "rum"])
def test_the_defaults_on_a_page_are_those_of_a_run(hooks: ModuleType, name: str):
    """Of a run on data without settings of their own."""
    conf = REPOSITORY / "conf"
    told = leaves(hooks.content(conf / "method" / f"{name}.yaml", conf))
    words = [f"method={name}", "dataset=synthetic", "model=resnet9"]
    with enable_composition([config_dir()]):
        used = leaves(resolve_config(compose_config("unlearn", words, [config_dir()]))["method"])
    told = {k: v for k, v in told.items() if ".search" not in k and "${" not in str(v)}
    assert told == {k: used[k] for k in told}
    assert len(told) > 8


def test_the_head_of_a_yaml_may_say_more_or_nothing(hooks: ModuleType, tmp_path: Path):
    text = "# A title.\n# Formula: a +\n#   b\n# Formula: c\n# Use: Here.\n# a remark\nk: 1\n# Not: x\n"
    assert hooks.head(text) == {"Formula": ["a + b", "c"], "Use": ["Here."]}
    (tmp_path / "method").mkdir()
    target = "_target_: unlearn.methods.finetune.Finetune\nepochs: 3  # passes | all\n"
    (tmp_path / "method" / "mine.yaml").write_text(target)
    page = hooks.page("mine", tmp_path, load_shipped_plane(), hooks.judged(load_shipped_plane()))
    assert "| `epochs` | `3` | passes \\| all |" in page
    assert "Formula" not in page
    assert "It is not part of the measured plane" in page
