"""The layout of --help, and tab completion as the shells ask for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn.config import help, help_layout
from unlearn.config.command_line import parse_command_line
from unlearn.config.completion import list_completions
from unlearn.config.registration import config_dir

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = [config_dir()]


def text_of(*words: str, name: str = "unlearn") -> str:
    return help.format_help(name, parse_command_line(["--help", *words], name))


@pytest.mark.parametrize("columns", ["60", "100", "200"])
@pytest.mark.parametrize("words", [[], ["all"], ["dataset"], ["method=salun"]], ids=" ".join)
def test_lines_are_no_wider_than_the_terminal(
    columns: str, words: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", columns)
    lines = text_of(*words).splitlines()
    usage = [line for line in lines if line.startswith("  ") and " unlearn.py " in line]
    limit = min(max(int(columns), 60), 110)
    wide = [line for line in lines if len(line) > limit and line not in (*usage, *help.FLAGS)]
    assert all(" " not in line.strip() for line in wide), wide  # one long word


def test_all_shows_every_option_and_a_topic_one_group():
    short, every, trainer = text_of(), text_of("all"), text_of("trainer")
    assert "  threads: " not in short and "Not shown: seeds, " in short
    assert "    threads: 1  # " in every and "Not shown" not in every
    assert "    threads: 1  # " in trainer and "batch_size" not in trainer
    assert trainer.startswith("Options of trainer (change with trainer.key=value):")
    sections = [line for line in short.splitlines() if line[:1] == " " and line[1:2] != " "]
    assert sections == [" Data", " Model", " Method", " Evaluation", " Run"]


def test_a_wrapped_comment_continues_as_a_comment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = help_layout.wrap_options("a: 1  # " + "word " * 20)
    assert all(line.lstrip().startswith(("a: 1  # word", "# word")) for line in lines)
    assert " ".join(lines).count("word") == 20 and max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("python unlearn.py metho", ["method.", "method=", "method_defaults="]),
        ("unlearn-run method=np", ["method=npo"]),
        ("python unlearn.py -m method=rem,np", ["method=rem,npo"]),
        ("python unlearn.py method=npo method.be", ["method.beta="]),
        ("unlearn-run method=npo method_defaults=npo/d",
         ["method_defaults=npo/digits_resnet9", "method_defaults=npo/digits_resnet9_etd"]),
        ("python unlearn.py discovery=cl", ["discovery=cleanlab"]),
        ("python unlearn.py discovery=ha", ["discovery=half"]),
        ("python unlearn.py experiment=de", ["experiment=demo"]),
        ("python unlearn.py trainer.accelerator=", [f"trainer.accelerator={v}" for v in ("auto", "cpu", "gpu")]),
        ("python unlearn.py method.expand=", ["method.expand=false", "method.expand=true"]),
        ("python unlearn.py --mul", ["--multirun"]),
        ("python unlearn.py method=nothing met", []),
    ],
)  # fmt: skip
def test_completions(line: str, wanted: list[str]):
    assert list_completions("unlearn", line, FOLDERS) == wanted


def test_paths_are_completed(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "plan.csv").touch()
    start = f"unlearn-run forget_set=file forget_set.path={tmp_path}/p"
    found = list_completions("unlearn", start, FOLDERS)
    assert [f.rpartition("=")[2] for f in found] == [f"{tmp_path}/photos/", f"{tmp_path}/plan.csv"]


ASK = {
    "bash": 'COMP_LINE="$LINE"; COMP_POINT=${#LINE}; _unlearn_complete; printf "%s\\n" "${COMPREPLY[@]}"',
    "fish": 'complete -C"$LINE"',
    "zsh": 'print -r -- "$+functions[_unlearn_complete] $_comps[unlearn-run]"',
}


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_a_shell_completes_after_the_script_is_sourced(shell: str, tmp_path: Path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    result = subprocess.run(
        [sys.executable, "unlearn.py", "-sc", f"install={shell}"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    script = tmp_path / "complete"
    script.write_text(f"{result.stdout}\n{ASK[shell]}\n")
    folder = Path(sys.executable).parent
    variables = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    asked = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else []), str(script)],
        cwd=REPOSITORY, env=variables | {"LINE": "python unlearn.py method=re"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    found = set(asked.stdout.split())
    if shell == "zsh":
        assert found == {"1", "_unlearn_complete"}, asked.stderr
    else:  # bash replaces what follows "=" alone
        assert {word.removeprefix("method=") for word in found} == {"rem", "retrain"}, asked.stderr
