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

from unlearn.reporting.tables import comparisons, formats, summary


def printed(table: pd.DataFrame, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    formats.print_table(table, "the title", console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_printed_table_loses_nothing(rows: pd.DataFrame):
    table = summary.summarize_metrics(rows)
    wide = printed(table, 150)
    assert "the title" in wide and "0.400 ± 0.082" in wide
    narrow = printed(table, 60)
    assert "…" not in narrow and "0.400" in narrow and max(map(len, narrow.splitlines())) <= 60


def test_the_main_table_fits_a_screen(rows: pd.DataFrame):
    long = rows.replace(
        {"npo_fast": "gradient_ascent(etd)", "rem": "retrain", "poison": "random_label"}
    )
    text = printed(summary.summarize_methods(long), 200)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 102 and "random 0.5" in text


def test_errors_can_be_left_out(rows: pd.DataFrame):
    table = comparisons.compare_regions(rows)
    assert "±" not in "".join(formats.text_table(table, errors=False)["high regularity"])
    assert "±" in formats.text_table(table)["high regularity"][0]


def test_a_pipe_gets_the_full_width(
    rows: pd.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("COLUMNS", raising=False)
    formats.print_table(summary.summarize_metrics(rows), "t")
    assert "0.400 ± 0.082" in capsys.readouterr().out


def test_markdown(rows: pd.DataFrame):
    rows["method"] = rows["method"].replace("npo_fast", "a|b")
    lines = formats.to_markdown(summary.summarize_metrics(rows)).splitlines()
    assert lines[0].startswith("| method | cells | healed |")
    assert lines[1].startswith("| --- | --: |")
    assert lines[3].startswith(r"| a\|b | 4 | 0.400 ± 0.082 | 1.000 ± 0.000 |")


def test_csv_is_not_rounded(rows: pd.DataFrame):
    content = list(csv.DictReader(io.StringIO(formats.to_csv(summary.summarize_metrics(rows)))))
    assert float(content[1]["healed_sem"]) == pytest.approx(math.sqrt(0.08 / 3) / 2, abs=1e-15)


def test_csv_has_no_formulas(rows: pd.DataFrame):
    rows["method"] = rows["method"].replace("npo_fast", "=HYPERLINK(1)")
    text = formats.to_csv(summary.summarize_metrics(rows).assign(low=-1.5, **{"@sum": "-x"}))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert lines[1]["method"] == "'=HYPERLINK(1)" and lines[0]["method"] == "rem"
    assert [line["low"] for line in lines] == ["-1.5", "-1.5"]
    assert [line["'@sum"] for line in lines] == ["'-x", "'-x"]


AWKWARD = r"50%_of{a}&b#c$d^e~f\g<h>"


def test_latex_marks_the_best_and_escapes(rows: pd.DataFrame):
    rows["method"] = rows["method"].replace("npo_fast", AWKWARD)
    text = formats.to_latex(summary.summarize_metrics(rows))
    escaped = r"50\%\_of\{a\}\&b\#c\$d\textasciicircum{}e\textasciitilde{}f\textbackslash{}g$<$h$>$"
    assert escaped in text
    rem = next(line for line in text.splitlines() if line.startswith("rem"))
    assert rem.startswith(
        r"rem & 4 & \textbf{0.925 $\pm$ 0.048} & \textcolor{blue}{0.875 $\pm$ 0.125} & \textbf{"
    )
    other = next(line for line in text.splitlines() if line.startswith("50"))
    assert other.count(r"\textbf") == 1  # utility
    assert other.count(r"\textcolor{blue}") == 2
    check_structure(text.partition("\n")[2])


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
    made = (
        summary.summarize_methods(rows),
        comparisons.compare_regions(rows),
        comparisons.compare_with_best(rows),
    )
    body = "\n\n".join(formats.to_latex(table) for table in made)
    head = "\\documentclass{article}\\usepackage{booktabs}\\usepackage{xcolor}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{head}{body}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("make", [comparisons.compare_regions, comparisons.compare_with_best])
def test_other_tables_in_latex(rows: pd.DataFrame, make):
    text = formats.to_latex(make(rows))
    check_structure(text.partition("\n")[2])
    assert "nan" not in text and (r"\textbf{" in text) == (make is comparisons.compare_regions)


def test_tables_are_saved_beside_one_another(rows: pd.DataFrame, tmp_path: Path):
    paths = formats.save_tables(summary.summarize_metrics(rows), tmp_path / "new" / "rate-0.5")
    assert [p.name for p in paths] == ["rate-0.5.csv", "rate-0.5.md", "rate-0.5.tex"]
    assert {p.name for p in (tmp_path / "new").iterdir()} == {p.name for p in paths}
