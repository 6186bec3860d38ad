"""What hydra says in many lines or not at all, said in one."""

import pytest

from unlearn.config import composition
from unlearn.config.command_line import parse_command_line
from unlearn.core import errors


def checked(*arguments: str) -> int:
    return len(composition.check_jobs("unlearn", parse_command_line(list(arguments))))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["discovery_rate=0.5"], "a number is given as discovery=0.5"),
        (["discovery=null"], r"discovery must be a number in \(0, 1\], got null"),
        (["trainer.compile=maybe"], "trainer.compile must be true or false, got maybe"),
        (["--config-name", "foo"], "--config-name is not supported"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_bad_input_is_one_sentence(arguments: list[str], expected: str):
    with pytest.raises(errors.ConfigError, match=expected):
        checked(*arguments)


def test_a_glob_finds_options(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "our.yaml").write_text("_target_: unlearn.methods.original.Original\n")
    usual = checked("--multirun", "method=glob(o*)")
    assert checked("--multirun", "--config-dir", str(tmp_path), "method=glob(o*)") == usual + 1
