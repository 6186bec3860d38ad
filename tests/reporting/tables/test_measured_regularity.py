"""Regularity from rows of retraining, its cache, and the fit over discovery and regularity."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlearn.reporting.figures.measured_plane import draw_measured_plane
from unlearn.reporting.tables import measured_regularity as measured
from unlearn.reporting.tables import regularity_fit as fit


def retrained(corruption: str, given: dict[tuple[int, float], float], **columns) -> pd.DataFrame:
    """Return rows of retraining; ``given`` by seed and discovery rate."""
    rows = [
        {
            "dataset": "digits", "model": "resnet9", "corrupted": 0.05, "corruption": corruption,
            "method": "retrain", "role": "reference", "status": "ok", "seed": seed, "discovery": rate,
            measured.GIVEN: value, measured.TRUE: 1 - value, "healed_utility": value,
        } | columns
        for (seed, rate), value in given.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_value_is_the_mean_difference_over_seeds_that_have_both_rates():
    given = {
        (0, 0.5): 0.9,
        (0, 1.0): 0.1,
        (1, 0.5): 0.7,
        (1, 1.0): 0.1,
        (2, 0.5): 0.2,
        (0, 0.1): 0.3,
    }
    table = measured.measure_regularity(retrained("poison", given))
    row = table.iloc[0]
    assert (len(table), row["n"]) == (1, 2)
    assert [row[k] for k in ("supported", "alone", "regularity")] == pytest.approx([0.8, 0.1, 0.7])
    assert row["regularity_sem"] == pytest.approx(0.1) and row["by"] == measured.GIVEN


def test_other_methods_and_other_pretraining_do_not_count():
    rows = retrained("poison", {(0, 0.5): 0.9, (0, 1.0): 0.1})
    assert measured.measure_regularity(rows.assign(role="method")).empty
    assert measured.measure_regularity(rows.assign(method="retrain(etd)")).empty
    assert measured.measure_regularity(rows.assign(status="collapsed")).empty
    assert measured.measure_regularity(rows.drop(columns=measured.GIVEN)).empty
    assert measured.measure_regularity(pd.DataFrame()).empty


def test_attack_success_counts_where_labels_are_right():
    given = {(0, 0.5): 0.98, (0, 1.0): 0.97}
    rows = retrained("sig", given).assign(attack_success_rate=[0.8, 0.1])
    rows[measured.TRUE] = rows[measured.GIVEN]
    row = measured.measure_regularity(rows).iloc[0]
    assert row["regularity"] == pytest.approx(0.7) and row["by"] == measured.SUCCESS
    wrong = rows.assign(**{measured.TRUE: 0.0})
    assert measured.measure_regularity(wrong).iloc[0]["regularity"] == pytest.approx(0.01)


def dial() -> pd.DataFrame:
    parts = [
        retrained("near_duplicates", {(0, 0.5): value, (0, 1.0): 0.0},
                  **{"config/corruption.group_size": size, "config/corruption._target_": "x"})
        for size, value in ((1, 0.0), (64, 0.6))
    ]  # fmt: skip
    return pd.concat(
        [*parts, retrained("poison", {(0, 0.5): 0.9, (0, 1.0): 0.1})], ignore_index=True
    )


def test_options_that_differ_within_a_corruption_are_named():
    table = measured.tabulate_regularity(measured.measure_regularity(dial()))
    assert dict(zip(table["corruption"], table["regularity"], strict=True)) == pytest.approx({
        "poison": 0.8, "near_duplicates(group_size 64)": 0.6, "near_duplicates(group_size 1)": 0.0,
    })  # fmt: skip


def test_values_are_kept_and_attached_by_setting_and_options(tmp_path: Path):
    path = tmp_path / "regularity.csv"
    known = measured.remember_regularity(measured.measure_regularity(dial()), path)
    before = path.read_bytes()
    later = measured.remember_regularity(measured.measure_regularity(pd.DataFrame()), path)
    assert path.read_bytes() == before
    rem = dial().assign(method="rem", role="method")
    for table in (known, later):
        out = measured.attach_regularity(rem, table)[measured.COLUMN]
        assert out.tolist() == pytest.approx([0.0, 0.0, 0.6, 0.6, 0.8, 0.8])
    other = measured.attach_regularity(rem.assign(dataset="elsewhere"), known)
    assert other[measured.COLUMN].isna().all()
    cells = rem.drop(columns=[c for c in rem if str(c).startswith("config/")])
    plain = measured.attach_regularity(cells, known)[measured.COLUMN]
    assert plain.isna().tolist() == [True] * 4 + [False] * 2  # two sizes: ambiguous
    path.write_text("something else\n")
    again = measured.remember_regularity(measured.measure_regularity(pd.DataFrame()), path)
    assert set(again["dataset"]) <= set(measured.read_measured(measured.SHIPPED)["dataset"])


def test_a_new_measurement_replaces_a_kept_one(tmp_path: Path):
    path = tmp_path / "regularity.csv"
    for value in (0.9, 0.5):
        rows = retrained("poison", {(0, 0.5): value, (0, 1.0): 0.1})
        known = measured.remember_regularity(measured.measure_regularity(rows), path)
    own = known[(known["corruption"] == "poison") & (known["options"] == "{}")]
    assert own["regularity"].tolist() == pytest.approx([0.4])


def plane() -> pd.DataFrame:
    """Return cells of a method that is linear in regularity, and of doing nothing, .5 everywhere."""
    rows = [
        {"method": method, "corruption": f"c{level}", "discovery": rate, measured.COLUMN: level,
         "healed_utility": level if method == "npo" else 0.5, "status": "ok", "seed": seed,
         "role": "baseline" if method == "original" else "method"}
        for method in ("npo", "original") for level in (0.0, 0.25, 0.5, 0.75, 1.0)
        for rate in (0.1, 0.5, 1.0) for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_fit_says_where_a_method_is_below_doing_nothing():
    table = fit.compare_with_nothing(fit.average_products(plane()))
    found = {row["method"]: row for row in table.to_dict("records")}
    npo, idle = found["npo"], found["original"]
    assert npo["n"] == 15 and npo["product"] == pytest.approx(0.5, abs=0.02)
    assert npo["below"] == pytest.approx(0.5, abs=0.06)
    assert 0 < npo["surely_below"] <= npo["below"]
    assert npo["where"].startswith("discovery 0.1 to 1, regularity 0.00 to 0.")
    assert idle["below"] == idle["surely_below"] == 0 and idle["where"] == ""


def test_the_fit_is_unsure_far_from_its_cells():
    cells = fit.average_products(plane())
    surface = fit.fit_methods(cells)["npo"]
    mean, deviation = surface.predict(np.array([[0.5, 0.5], [0.5, 9.0]]))
    assert mean[0] == pytest.approx(0.5, abs=0.02) and 0 <= mean[1] <= 1
    assert deviation[0] < 0.05 < deviation[1]


def test_advice_at_a_place_reads_the_fit():
    cells = fit.average_products(plane())
    low = fit.advise_at(cells, 0.0, 0.5).set_index("method")
    assert low.index.tolist() == ["original", "npo"]
    assert low.loc["npo", "verdict"] == "surely below doing nothing"
    assert low.loc["npo", "gain"] == pytest.approx(-0.5, abs=0.03)
    high = fit.advise_at(cells, 1.0, None)
    assert high["method"].tolist() == ["npo", "original"] and not high["verdict"].any()


def test_few_cells_give_no_fit():
    cells = fit.average_products(plane())
    assert not fit.fit_methods(cells[cells[measured.COLUMN] < 0.5])
    assert not fit.fit_methods(cells[cells["discovery"] == 0.5])
    assert fit.compare_with_nothing(cells[cells["method"] == "npo"]).empty
    assert fit.advise_at(cells.iloc[:0], 0.5, None).empty


def test_the_figure_puts_cells_at_their_measured_place():
    fig = draw_measured_plane(plane())
    panels = fig.axes[:2]
    assert [a.get_title(loc="left") for a in panels] == ["npo   mean 0.50", "original   mean 0.50"]
    places = np.asarray(panels[0].collections[0].get_offsets())
    assert sorted(set(places[:, 1])) == [0.0, 0.25, 0.5, 0.75, 1.0]
    fig.draw_without_rendering()
    with pytest.raises(ValueError, match="figure=regularity needs rows of method=retrain"):
        draw_measured_plane(plane().assign(**{measured.COLUMN: math.nan}))
