"""Every command of README and docs is valid: its config is composed and checked, nothing is run."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from tests.documented_commands import REPOSITORY, Snippet, list_pages, read_snippets, split_commands
from unlearn.config import composition
from unlearn.config.command_line import add_checkpoint_defaults, parse_command_line
from unlearn.config.help import format_help

COMMANDS = ("unlearn", "train", "evaluate")
OPEN = ("...", "<team>", "$data", "you/leaves", "-sc ")
"""What a reader has to fill in, and completion, which has its own tests."""


def read_calls() -> list[tuple[Snippet, str, list[str]]]:
    """Return the calls of the three commands: where, which, with which words."""
    found: dict[tuple[str, ...], tuple[Snippet, str, list[str]]] = {}  # each call once
    for page in list_pages():
        for snippet in read_snippets(page):
            words = shlex.split(snippet.text) if snippet.language == "bash" else []
            while words and "=" in words[0]:
                words.pop(0)  # variables of the environment
            script = words[1].removesuffix(".py") if words[:1] == ["python"] else ""
            if script in COMMANDS and not any(part in snippet.text for part in OPEN):
                found.setdefault(tuple(words), (snippet, script, words[2:]))
    return list(found.values())


CALLS = read_calls()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the commands name."""
    home = tmp_path_factory.mktemp("desk")
    for part in ("photos/train", "photos/test"):
        for name in ("cat", "dog"):
            (home / part / name).mkdir(parents=True)
            for k in range(3):
                pixels = np.full((8, 8, 3), 40 * k, dtype=np.uint8)
                Image.fromarray(pixels).save(home / part / name / f"{k}.png")
    (home / "bad.csv").write_text("file\ncat/0.png\n")
    (home / "label_issues.csv").write_text("is_label_issue,given_label,predicted_label\nTrue,0,1\n")
    (home / "good.csv").write_text("1\n2\n")
    (home / "cifar10n.csv").write_text("clean_label,worse_label\n0,1\n")
    (home / "wrong.jpg").write_bytes((home / "photos/test/cat/0.png").read_bytes())
    (home / "verified" / "0").mkdir(parents=True)
    (home / "outputs" / "tuning").mkdir(parents=True)
    for name in ("mine.pt", "my_model.pt"):
        torch.save(resnet18(num_classes=2).state_dict(), home / name)
    for group in ("dataset", "corruption", "method", "evaluation", "detector", "localization"):
        (home / "my_conf" / group).mkdir(parents=True)
    return home


def test_commands_are_found():
    pages = {snippet.page for snippet, _, _ in CALLS}
    assert {"README.md", "docs/your_model.md", "docs/scale.md"} <= pages
    assert len(CALLS) > 60
    block = '# a remark\nmake a  # said\npython b \\\n  c\nx="1\n  2"\n'
    assert list(split_commands(block)) == [(1, "make a"), (2, "python b c"), (4, 'x="1 2"')]


@pytest.mark.parametrize(
    ("snippet", "script", "words"), CALLS, ids=[f"{s.page}:{s.line}" for s, _, _ in CALLS]
)
def test_a_documented_command_is_valid(
    snippet: Snippet, script: str, words: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(desk)
    monkeypatch.setenv("UNLEARN_HOME", str(desk / "outputs"))
    if "my_conf" in words:
        write_own_files(snippet.page, desk)
    arguments = parse_command_line(add_checkpoint_defaults(script, words), script)
    if arguments.help:
        assert format_help(script, arguments)
        return
    monkeypatch.setattr(
        composition, "select_covering_jobs", lambda jobs: [*jobs[:1], *jobs[1:][-1:]]
    )
    assert composition.check_jobs(script, arguments)  # of a sweep the first and the last job


def write_own_files(page: str, desk: Path) -> None:
    """Write the YAML files that a page shows."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for title, said in re.findall(r'```yaml(?: title="(.+?)")?\n(.+?)```', text, re.DOTALL):
        path = desk / (title or said.splitlines()[0].removeprefix("# "))
        path.write_text(said)
