"""Advice: from measured rows or the shipped table, the nearest cells, and a reason for each verdict."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from unlearn.core.console import make_console
from unlearn.reporting.tables.advice import (
    Case,
    aggregate_plane,
    describe_case,
    for_trained,
    load_shipped_plane,
    make_advice,
    select_nearest,
    shorten_advice,
)
from unlearn.reporting.tables.formats import print_table, text_table
from unlearn.reporting.tables.frames import prepare_rows
from unlearn.reporting.tables.merged_planes import (
    choose_setting,
    describe_sources,
    merge_planes,
)

REPOSITORY = Path(__file__).resolve().parents[3]
NOTHING, GOOD = (0.1, 0.98), (0.9, 0.97)


def measured(frame, **values):
    """Return the plane of one cell: healed and utility per method, two seeds alike."""
    cells = [
        (name, "poison", 0.5, seed, "ok", *pair, 1.0 if name == "retrain" else 0.5)
        for name, pair in values.items()
        for seed in (0, 1)
    ]
    return aggregate_plane(prepare_rows(frame(*cells)))


def verdicts(frame, **values):
    return make_advice(measured(frame, **values)).set_index("method")


def test_a_plane_holds_means_over_seeds(rows: pd.DataFrame):
    table = aggregate_plane(prepare_rows(rows))
    cell = table[(table["method"] == "npo_fast") & (table["discovery"] == 0.5)].iloc[0]
    assert cell["healed_utility"] == pytest.approx(0.3)
    assert cell["healed_utility_sem"] == pytest.approx(0.1)
    assert (cell["lowest"], cell["n"], cell["collapsed"]) == (0.2, 2, 0)
    assert math.isnan(cell["time"])  # nothing was retrained


def test_the_nearest_measured_rate_of_the_kind_counts(rows: pd.DataFrame):
    table = aggregate_plane(prepare_rows(rows))
    for asked, used in ((0.6, 0.5), (0.9, 1.0), (0.75, 0.5)):  # between two: the harder one
        assert set(select_nearest(table, Case("poison", asked))["discovery"]) == {used}
    assert set(select_nearest(table, Case(None, None))["discovery"]) == {0.5, 1.0}
    with pytest.raises(ValueError, match=r"one that was measured \(poison\).*got random_label"):
        select_nearest(table, Case("random_label", 0.5))


def test_verdicts_have_reasons(frame):
    out = verdicts(
        frame, original=NOTHING, rem=GOOD, npo=(0.88, 0.97), finetune=(0.12, 0.99), ssd=(0.95, 0.7),
        potion=(0.6, 0.97), badt=(0.3, 0.97), retrain=(0.12, 0.99),
    )  # fmt: skip
    assert dict(out["advice"]) == {
        "rem": "use", "npo": "use", "potion": "possible", "badt": "avoid", "finetune": "avoid",
        "ssd": "avoid", "retrain": "avoid", "original": "avoid",
    }  # fmt: skip
    assert out.loc["finetune", "why"] == "healed 0.12, without unlearning 0.10"
    assert out.loc["ssd", "why"] == "loses 0.28 of utility"
    assert out.loc["badt", "why"] == "healed 0.30, rem 0.90"
    assert out.loc["npo", "why"] == "0.02 ± 0.00 behind rem"
    assert out.loc["rem", "why"] == "best"
    assert list(out["advice"]) == sorted(out["advice"], key=["use", "possible", "avoid"].index)
    assert out.loc["rem", "time"] == 0.5


def test_a_method_that_breaks_models_is_to_be_avoided(frame):
    cells = [
        ("rem", "poison", 0.5, 0, "ok", *GOOD, 1.0),
        ("scrub", "poison", 0.5, 0, "ok", *GOOD, 1.0),
    ]
    cells += [("scrub", "poison", 0.5, 1, "collapsed", None, None, 1.0)]
    out = make_advice(aggregate_plane(prepare_rows(frame(*cells)))).set_index("method")
    assert out.loc["scrub", "why"] == "collapsed in 1 of 2 runs"
    assert out.loc["scrub", "lowest"] == 0


def test_a_few_seeds_do_not_excuse_a_large_gap(frame):
    cells = [("rem", "poison", 0.5, s, "ok", 0.9, 1.0, 1.0) for s in (0, 1)]
    cells += [("npo", "poison", 0.5, s, "ok", h, 1.0, 1.0) for s, h in ((0, 0.2), (1, 0.9))]
    assert (
        make_advice(aggregate_plane(prepare_rows(frame(*cells))))
        .set_index("method")
        .loc["npo", "advice"]
        == "possible"
    )


def test_oracles_and_what_detectors_found_are_left_out(frame):
    rows = frame(
        ("rem (IDEAL)", "poison", 0.5, 0, "ok", *GOOD, 1.0),
        ("rem", "poison", 0.5, 0, "ok", *GOOD, 1.0),
    )
    assert list(aggregate_plane(prepare_rows(rows))["method"]) == ["rem"]
    assert aggregate_plane(prepare_rows(rows.assign(discovery=None))).empty


def test_the_shipped_table_is_the_whole_plane_of_the_digits():
    table = load_shipped_plane()
    assert len(table) == 23 * 30
    assert (table["n"] == 3).all()
    cells = select_nearest(table, Case(None, None))
    out = make_advice(cells).set_index("method")
    assert out.loc["rem", "healed_utility"] == pytest.approx(0.927, abs=0.001)  # as in the README
    assert out.loc["rem", "advice"] == "use"
    assert out.loc["original", "advice"] == "avoid"
    text = describe_case(Case("poison", 0.33), select_nearest(table, Case("poison", 0.33)), "here")
    assert text == (
        "poison (regularity high), discovery 0.3, the nearest to 0.33; measured on digits, resnet9, "
        "3 seeds: here"
    )


def test_a_model_that_is_trained_already_has_its_own_methods():
    left = set(for_trained(load_shipped_plane())["method"])
    assert set(load_shipped_plane()["method"]) - left == {
        "etd", "rem(etd)", "npo(etd)", "badt(etd)", "scrub(etd)"
    }  # fmt: skip


def rows_of(frame, *cells):
    """Return the plane of the digits for (method, corruption, rate, seed, healed, utility)."""
    rows = frame(*[(m, c, d, s, "ok", h, u, 1.0) for m, c, d, s, h, u in cells])
    setting = {"dataset": "digits", "model": "resnet9", "corrupted": 0.05}
    return aggregate_plane(prepare_rows(rows.assign(**setting)))


def test_own_rows_are_joined_with_the_package_s_by_cell(frame):
    own = rows_of(
        frame,
        ("original", "poison", 0.5, 7, 0.1, 0.98),
        ("ssd", "poison", 0.5, 7, 0.9, 1.0),
        ("mine", "poison", 0.5, 7, 0.5, 1.0),
    )
    shipped = load_shipped_plane()
    table = merge_planes(own, shipped)
    assert len(table) == len(shipped) + 1  # of the method that the package has not measured
    assert not table.duplicated(["corruption", "discovery", "method"]).any()

    def cell(plane, name):
        at = (plane["method"] == name) & (plane["corruption"] == "poison")
        return plane[at & (plane["discovery"] == 0.5)].iloc[0]

    old, new = cell(shipped, "ssd"), cell(table, "ssd")
    assert new["healed_utility"] == pytest.approx((3 * old["healed_utility"] + 0.9) / 4)
    assert (new["n"], new["own"]) == (4, 1)
    assert new["healed_utility_sem"] == pytest.approx(  # one seed has the deviation of the others
        math.hypot(3 * old["healed_utility_sem"], 3**0.5 * old["healed_utility_sem"]) / 4
    )
    assert cell(table, "rem")["own"] == 0
    assert cell(table, "mine")["own"] == 1
    out = make_advice(select_nearest(table, Case("poison", 0.5))).set_index("method")
    assert out.loc["ssd", "rows"] == "3 + 1 own"
    assert out.loc["mine", "rows"] == "1 own"
    assert out.loc["rem", "rows"] == "3"
    assert out.loc["ssd", "why"] != "best"
    names = {"dataset": "digits", "model": "resnet9"}
    other = choose_setting(table, names, "random_label")  # not among the own rows
    assert len(make_advice(select_nearest(other, Case("random_label", 0.5)))) == 23
    told = describe_sources(select_nearest(table, Case("poison", 0.5)), table, "here", "abc")
    assert told == "3 rows of here and 69 rows of the package's own table (revision abc)"


def test_few_methods_of_another_setting_do_not_replace_the_package_s_cells(frame):
    cells = [(m, "poison", 0.5, 0, "ok", 0.9, 1.0, 1.0) for m in ("original", "ssd")]
    photos = prepare_rows(frame(*cells)).assign(dataset="photos", model="timm", corrupted=0.1)
    table = merge_planes(aggregate_plane(photos), load_shipped_plane())
    names = {"dataset": "photos", "model": "timm"}
    assert set(choose_setting(table, names, "poison")["dataset"]) == {"digits"}
    assert set(choose_setting(table, names, "random_label")["dataset"]) == {"digits"}
    more = [(m, "poison", 0.5, 0, "ok", 0.9, 1.0, 1.0) for m in ("original", "ssd", "npo")]
    photos = prepare_rows(frame(*more)).assign(dataset="photos", model="timm", corrupted=0.1)
    table = merge_planes(aggregate_plane(photos), load_shipped_plane())
    assert set(choose_setting(table, names, "poison")["dataset"]) == {"photos"}
    assert set(choose_setting(table, names, "random_label")["dataset"]) == {"digits"}


def test_the_printed_table_fits_80_columns():
    out = shorten_advice(make_advice(select_nearest(load_shipped_plane(), Case(None, None))))
    with (console := make_console(width=80)).capture() as captured:
        print_table(out, "title", console)
    assert text_table(out).shape[1] == 5
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    for row in text_table(out).itertuples(index=False):
        assert any(all(str(cell) in line for cell in row[:4]) for line in lines)  # not wrapped


def test_the_command_needs_no_rows_and_no_knowledge(tmp_path: Path):
    """Without rows the shipped table speaks; unknown kinds and rates are named none."""
    variables = os.environ | {"UNLEARN_HOME": str(tmp_path), "COLUMNS": "200"}
    command = [sys.executable, "evaluate.py", "advise=true", "corruption=none", "discovery=none"]
    result = subprocess.run(
        command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "any corruption, discovery 0.1 to 1; measured on digits" in result.stdout
    written = (tmp_path / "reports" / "advice.md").read_text()
    assert "the package's own table (revision" in written
    assert "| rem " in written
    assert (tmp_path / "reports" / "plane.csv").exists()
