import io
import sys

import pytest
from rich.table import Table

from unlearn.core.console import make_console
from unlearn.core.spreadsheets import escape_formula
from unlearn.core.streams import TolerantStream, protect_streams


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "0.5 +/- 0.1 <= 1 ?"),
        ("latin-1", "0.5 ± 0.1 <= 1 ?"),
        ("utf-8", "0.5 ± 0.1 ≤ 1 日"),
    ],
)
def test_a_table_can_be_printed_in_every_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str
):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", TolerantStream(sys.stderr, "stderr"))
    protect_streams()
    table = Table(title="t")
    table.add_column("column")
    table.add_row("0.5 ± 0.1 ≤ 1 日")
    make_console(width=60).print(table)
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    text = stream.buffer.getvalue().decode(encoding)
    assert expected in text and ("\u2502" in text) == (encoding == "utf-8")


@pytest.mark.parametrize(("value", "expected"), [(None, "\x1b[1;31mx"), ("1", "\x1b[1mx")])
def test_no_color_leaves_no_colour(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    stream = io.StringIO()
    make_console(file=stream, force_terminal=True, color_system="standard").print(
        "x", style="bold red"
    )
    assert stream.getvalue().startswith(expected)


@pytest.mark.parametrize("value", ["=1+1", "+a", "-cmd", "@SUM(A1)", "\tx", "\r=1", "-1+2"])
def test_text_that_begins_like_a_formula_is_escaped(value: str):
    assert escape_formula(value) == "'" + value


@pytest.mark.parametrize("value", ["rem", "-0.5", "+1e-3", "", "a=b", -1.0, None, True])
def test_numbers_and_other_text_are_unchanged(value: object):
    assert escape_formula(value) is value
