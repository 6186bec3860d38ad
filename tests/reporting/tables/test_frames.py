import numpy as np
import pandas as pd
import pytest

from unlearn.reporting.tables import facts, frames


def rows(*cells: tuple) -> pd.DataFrame:
    columns = ["method", "pretraining", "corruption", "discovery", "seed", "healed_utility"]
    out = pd.DataFrame(list(cells), columns=columns)
    return out.assign(status="ok", dataset="digits")


def test_a_label_names_the_pretraining_unless_it_is_the_standard_one():
    frame = rows(
        ("rem", "standard", "poison", 0.5, 0, 0.9),
        ("rem", "etd", "poison", 0.5, 0, 0.8),
        ("npo", "capacity", "poison", 0.5, 0, 0.7),
        ("npo", None, "poison", 0.5, 0, 0.7),
    )
    once = frames.label_pretraining(frame)
    assert once["method"].tolist() == ["rem", "rem(etd)", "npo(capacity)", "npo"]
    assert frames.label_pretraining(once)["method"].tolist() == once["method"].tolist()
    assert frame["method"].tolist() == ["rem", "rem", "npo", "npo"]
    assert (
        frames.label_pretraining(frame.drop(columns="pretraining"))["method"].tolist()[1] == "rem"
    )
    own = rows(("etd", "etd", "poison", 0.5, 0, 0.9))
    assert frames.label_pretraining(own)["method"].tolist() == ["etd"]
    assert {facts.plain_name(n) for n in ("rem(etd)", "rem", "rem (IDEAL)(etd)")} == {"rem"}


def test_methods_without_a_rate_are_copied_to_all_rates():
    frame = rows(
        ("original", "etd", "poison", 0.5, 0, 0.1),
        ("original", "etd", "poison", 0.5, 1, 0.3),
        ("rem", "standard", "poison", 0.1, 0, 0.9),
        ("rem", "standard", "poison", 1.0, 0, 0.9),
        ("npo", "standard", "poison", 0.5, 0, 0.9),
    )
    out = frames.prepare_rows(frame)
    copied = out[out["method"] == "original(etd)"]
    found = sorted(zip(copied["discovery"], copied["seed"], copied["healed_utility"], strict=True))
    assert found == [
        (0.1, 0, 0.1), (0.1, 1, 0.3), (0.5, 0, 0.1), (0.5, 1, 0.3), (1.0, 0, 0.1), (1.0, 1, 0.3),
    ]  # fmt: skip
    assert len(out[out["method"] == "npo"]) == 1
    assert len(frames.spread_rates(out)) == len(out)


def test_nothing_is_copied_where_several_rates_were_run_or_to_other_data():
    several = rows(
        ("original", "standard", "poison", 0.1, 0, 0.1),
        ("original", "standard", "poison", 0.5, 0, 0.1),
        ("rem", "standard", "poison", 1.0, 0, 0.9),
    )
    assert len(frames.spread_rates(several)) == 3
    other = several.iloc[1:].assign(dataset=["digits", "svhn"])
    assert len(frames.spread_rates(other)) == 2


def test_bands_cover_every_rate():
    names = [frames.rate_band(r / 10) for r in range(1, 11)]
    assert names == ["low"] * 3 + ["mid"] * 4 + ["high"] * 3
    assert (
        frames.rate_band(0.05) == "low"
        and frames.rate_band(0.75) == "mid"
        and frames.rate_band(0.0) is None
    )
    assert frames.rate_band(float("nan")) is None


def test_cells_are_means_of_their_runs_with_zero_for_a_collapse():
    frame = rows(
        ("a", "standard", "poison", 0.5, 0, 0.2),
        ("a", "standard", "poison", 0.5, 0, 0.4),
        ("a", "standard", "poison", 0.5, 1, None),
        ("b", "standard", "poison", 0.5, 0, 0.5),
    )
    frame.loc[2, "status"] = "collapsed"
    table = frames.by_cell(frame, "healed_utility")
    assert table["a"].tolist() == pytest.approx([0.3, 0.0])
    assert table["b"].iloc[0] == 0.5 and np.isnan(table["b"].iloc[1])
    merged = frames.by_cell(frame, "healed_utility", seeds=False)
    assert merged["a"].tolist() == pytest.approx([0.2])


def test_rows_of_data_that_has_changed_are_left_out_and_named():
    frame = pd.DataFrame(
        {
            "dataset": ["mine", "mine", "mine", "mine", "other"],
            "config/dataset.root": ["a", "a", "a", "b", "a"],
            "data/digest": ["old", "new", None, "old", "old"],
            "created": ["2026-01-01", "2026-01-02", "2026-01-01", "2026-01-01", "2026-01-01"],
        }
    )
    kept, lines = frames.select_current_data(frame)
    assert list(kept.index) == [1, 2, 3, 4]
    (line,) = lines
    assert line.startswith("data set mine has changed: 1 row ") and "newest: new" in line
    plain = frame.drop(columns="data/digest")
    assert frames.select_current_data(plain)[0] is plain


def test_machines_that_round_differently_are_named():
    frame = pd.DataFrame({"machine/instructions": ["AVX2", "AVX512", None], "machine/threads": 2})
    line = frames.describe_machines(frame)
    assert line is not None and line.endswith("machine/instructions AVX2, AVX512, unknown")
    assert frames.describe_machines(frame.iloc[:1]) is None
    assert frames.describe_machines(frame[[]]) is None


def test_text_in_number_columns_is_named_and_left_out(caplog: pytest.LogCaptureFixture):
    frame = pd.DataFrame(
        {
            "run_id": ["a", "b", "c"],
            "method": ["rem", "npo", "5"],
            "discovery": ["half", None, 0.5],
            "seed": ["first", "second", "third"],
            "relearn_steps": [3, "many", 4.5],
            "localization/layers": ["{}", 1, None],
            "config/lr": [0.1, 0.2, "auto"],
        }
    )
    found = frames.drop_text_values(frame)
    assert caplog.messages == [
        "run a: discovery is not a number, left out: 'half'",
        *(
            f"run {r}: seed is not a number, left out: '{v}'"
            for r, v in zip("abc", frame["seed"], strict=True)
        ),
        "run b: relearn_steps is not a number, left out: 'many'",
    ]
    assert found["discovery"].isna().tolist() == [True, True, False]
    assert found["seed"].isna().all() and found["relearn_steps"].sum() == 7.5
    same = ["run_id", "method", "localization/layers", "config/lr"]
    pd.testing.assert_frame_equal(found[same], frame[same])
    assert frames.prepare_rows(found)["discovery"].tolist()[2] == 0.5
