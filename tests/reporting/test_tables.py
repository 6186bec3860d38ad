import csv
import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from unlearn.reporting import tables

COLUMNS = ["method", "corruption", "discovery", "seed", "status", "healed", "utility", "seconds"]


def frame(*rows: tuple) -> pd.DataFrame:
    out = pd.DataFrame(list(rows), columns=COLUMNS)
    out["healed_utility"] = out["healed"] * out["utility"]
    return out


@pytest.fixture
def rows() -> pd.DataFrame:
    return frame(
        ("npo_fast", "poison", 0.5, 0, "ok", 0.2, 1.0, 1.0),
        ("npo_fast", "poison", 0.5, 1, "ok", 0.4, 1.0, 2.0),
        ("npo_fast", "poison", 1.0, 0, "ok", 0.6, 1.0, 3.0),
        ("npo_fast", "poison", 1.0, 1, "ok", 0.4, 1.0, 6.0),
        ("rem", "poison", 0.5, 0, "ok", 0.8, 0.5, 2.0),
        ("rem", "poison", 0.5, 1, "ok", 0.9, 1.0, 2.0),
        ("rem", "poison", 1.0, 0, "ok", 1.0, 1.0, 2.0),
        ("rem", "poison", 1.0, 1, "ok", 1.0, 1.0, 2.0),
    )


def test_the_standard_error_by_hand():
    # mean 2.5; squares 2.25 + .25 + .25 + 2.25 = 5; 5 / 3 = 1.6667; root 1.2910; / 2 = 0.6455
    values = pd.Series([1.0, 2.0, 3.0, 4.0])
    assert tables.standard_error(values) == pytest.approx(0.645497, abs=1e-6)
    assert tables.standard_error(pd.Series([1.0, 3.0, math.nan])) == pytest.approx(1.0)
    assert math.isnan(tables.standard_error(pd.Series([1.0])))
    assert math.isnan(tables.standard_error(pd.Series([], dtype=float)))


def test_the_summary_by_hand(rows: pd.DataFrame):
    table = tables.summary(rows)
    assert table["method"].tolist() == ["rem", "npo_fast"]
    npo = table.iloc[1]
    assert npo["n"] == 4 and npo["healed"] == pytest.approx(0.4)
    # squares .04 + 0 + .04 + 0 = .08; / 3; root .163299; / 2
    assert npo["healed_sem"] == pytest.approx(0.0816497, abs=1e-6)
    assert npo["seconds"] == 3.0 and npo["utility_sem"] == 0
    # seeds: means of tasks (.2 + .6) / 2 and (.4 + .4) / 2 are alike
    assert npo["healed_utility_seed_sem"] == pytest.approx(0.0)
    rem = table.iloc[0]
    assert rem["healed_utility"] == pytest.approx((0.4 + 0.9 + 1 + 1) / 4)  # products, then mean
    # seeds: 0.7 and 0.95; deviation .25 / sqrt 2; / sqrt 2
    assert rem["healed_utility_seed_sem"] == pytest.approx(0.125)
    assert rem["worst"] == pytest.approx(0.4)
    assert table["collapsed"].tolist() == table["failed"].tolist() == [0, 0]


def test_the_input_is_left_as_it_was(rows: pd.DataFrame):
    before = rows.copy()
    tables.summary(rows)
    tables.cells(rows)
    pd.testing.assert_frame_equal(rows, before)


def test_groups_of_two_columns(rows: pd.DataFrame):
    table = tables.summary(rows, by=("discovery", "method"), metrics=("healed", "healed_utility"))
    assert len(table) == 4 and list(table.columns[:3]) == ["discovery", "method", "n"]
    shown = tables.text_table(table)
    assert shown["discovery"].tolist() == ["1", "0.5", "1", "0.5"]


def test_a_collapsed_cell_counts_zero_and_a_failed_one_is_counted():
    rows = frame(
        ("a", "poison", 0.5, 0, "ok", 0.8, 1.0, 1.0),
        ("a", "poison", 0.5, 1, "collapsed", None, None, 1.0),
        ("a", "poison", 0.5, 2, "failed", None, None, None),
        ("b", "poison", 0.5, 0, "ok", None, None, 1.0),
    )
    rows["failed/headline"] = [None, None, None, "KeyError: 'x'"]
    table = tables.summary(rows)
    a, b = table.iloc[0], table.iloc[1]
    assert a["n"] == 3 and a["collapsed"] == 1 and a["failed"] == 1
    assert a["healed_utility"] == pytest.approx(0.4) and a["worst"] == 0
    assert b["failed"] == 1 and math.isnan(b["healed"])
    assert tables.cells(rows).loc["a", ("poison", 0.5)] == pytest.approx(0.4)
    shown = tables.text_table(table)
    assert shown["collapsed"].tolist() == ["1", "0"] and shown["failed"].tolist() == ["1", "1"]
    assert shown["healed"].tolist() == ["0.400 ± 0.400", "-"]
    assert r"\textbf{-}" not in tables.to_latex(table)


def test_nothing_known_at_all():
    rows = frame(("a", "none", 0.5, 0, "ok", None, 0.5, 1.0)).assign(healed=None)
    rows["healed_utility"] = None
    table = tables.summary(rows)
    for text in (tables.to_latex(table), tables.to_markdown(table)):
        assert "nan" not in text.lower() and "None" not in text


def test_groups_without_a_name_are_not_dropped(rows: pd.DataFrame):
    rows["discovery"] = [None] * 4 + [0.5] * 4
    assert tables.summary(rows, by=["discovery"])["n"].sum() == 8


def test_no_rows_are_a_clear_error(rows: pd.DataFrame):
    with pytest.raises(ValueError, match="no results to show: 0 rows"):
        tables.summary(rows.iloc[:0])
    with pytest.raises(ValueError, match=r"missing columns \['colour'\]"):
        tables.summary(rows, by=("colour",))


def test_one_cell_shows_no_error(rows: pd.DataFrame):
    table = tables.summary(rows.iloc[[0, 4]])
    for text in (tables.to_latex(table), tables.to_markdown(table), tables.to_csv(table)):
        assert "nan" not in text.lower() and "±" not in text and r"\pm" not in text


def test_cells_have_a_row_per_method(rows: pd.DataFrame):
    table = tables.cells(rows, "healed")
    assert table.loc["npo_fast", ("poison", 0.5)] == pytest.approx(0.3)
    assert list(table.columns) == [("poison", 0.5), ("poison", 1.0)]


def printed(table: pd.DataFrame, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    tables.print_table(table, "the title", console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_printed_table_loses_nothing(rows: pd.DataFrame):
    table = tables.summary(rows)
    wide = printed(table, 150)
    assert "the title" in wide and "0.400 ± 0.082" in wide and "± seeds" in wide
    narrow = printed(table, 60)
    assert "…" not in narrow and "0.400" in narrow and max(map(len, narrow.splitlines())) <= 60


def test_a_pipe_gets_the_full_width(
    rows: pd.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("COLUMNS", raising=False)
    tables.print_table(tables.summary(rows), "t")
    assert "0.400 ± 0.082" in capsys.readouterr().out


def test_markdown(rows: pd.DataFrame):
    rows["method"] = rows["method"].replace("npo_fast", "a|b")
    lines = tables.to_markdown(tables.summary(rows)).splitlines()
    assert lines[0].startswith("| method | cells | healed |")
    assert lines[1].startswith("| --- | --: |")
    assert lines[3].startswith(r"| a\|b | 4 | 0.400 ± 0.082 | 1.000 ± 0.000 |")


def test_csv_is_not_rounded(rows: pd.DataFrame):
    content = list(csv.DictReader(io.StringIO(tables.to_csv(tables.summary(rows)))))
    assert float(content[1]["healed_sem"]) == pytest.approx(math.sqrt(0.08 / 3) / 2, abs=1e-15)


AWKWARD = r"50%_of{a}&b#c$d^e~f\g<h>"


def test_latex_marks_the_best_and_escapes(rows: pd.DataFrame):
    rows["method"] = rows["method"].replace("npo_fast", AWKWARD)
    text = tables.to_latex(tables.summary(rows))
    escaped = r"50\%\_of\{a\}\&b\#c\$d\textasciicircum{}e\textasciitilde{}f\textbackslash{}g$<$h$>$"
    assert escaped in text
    rem = next(line for line in text.splitlines() if line.startswith("rem"))
    assert rem.startswith(r"rem & 4 & \textbf{0.925 $\pm$ 0.048} & 0.875 $\pm$ 0.125 & \textbf{")
    other = next(line for line in text.splitlines() if line.startswith("50"))
    assert other.count(r"\textbf") == 1  # utility
    check_structure(text)


def check_structure(text: str) -> None:
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns is not None
    for line in text.splitlines():
        if line.endswith(r" \\"):
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1
            bare = re.sub(r"\\[{}$&%#_\\]", "", line)
            assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
            assert not set("_#%") & set(bare)
    for command in ("begin", "end"):
        assert text.count(rf"\{command}{{tabular}}") == 1
    assert [text.index(rf"\{r}rule") for r in ("top", "mid", "bottom")] == sorted(
        text.index(rf"\{r}rule") for r in ("top", "mid", "bottom")
    )
    assert text.isascii()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(rows: pd.DataFrame, tmp_path: Path):
    rows["method"] = rows["method"].replace("npo_fast", AWKWARD)
    body = tables.to_latex(tables.summary(rows))
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{head}{body}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_tables_are_saved_beside_one_another(rows: pd.DataFrame, tmp_path: Path):
    paths = tables.save_tables(tables.summary(rows), tmp_path / "new" / "rate-0.5")
    assert [p.name for p in paths] == ["rate-0.5.csv", "rate-0.5.md", "rate-0.5.tex"]
    assert {p.name for p in (tmp_path / "new").iterdir()} == {p.name for p in paths}
