"""Gaps to the oracle, and the figures of localized unlearning."""

import json

import pandas as pd
import pytest

from unlearn.reporting.figures import catalog
from unlearn.reporting.figures.localization import draw_localization, main_budget
from unlearn.reporting.tables import formats
from unlearn.reporting.tables.oracle_gaps import gap_table, parse_localizations, with_gaps


def row(method, seed, forget, test, budget=None, name=None, classes=None, **more):
    layers = json.dumps({"conv": budget, "fc": 1.0}) if budget else None
    return {
        "method": method if budget is None else f"{method}({name or ''} {budget})", "seed": seed,
        "status": "ok", "seconds": 1.0 if method != "retrain" else 2.0, "dataset": "digits", "model": "resnet9", "corruption": "none",
        "discovery": 0.5, "forget/accuracy": forget, "retain/accuracy": 1.0,
        "test/accuracy": test, "mia": 1 - forget, "config/localization_name": name,
        "method/localization/budget": budget, "method/localization/share_global": budget,
        "method/localization/layers": layers,
        "forget_set/kind": "iid" if classes is None else "non_iid",
    } | more  # fmt: skip


@pytest.fixture
def frame():
    return pd.DataFrame(
        [
            row("retrain", 0, 0.8, 0.9),
            row("retrain", 1, 0.9, 0.9),
            row("original", 0, 1.0, 0.95),
            row("neggrad_plus", 0, 0.5, 0.9),
            row("neggrad_plus", 0, 0.7, 0.9, 0.1, "salloc"),
            row("neggrad_plus", 1, 0.7, 0.8, 0.1, "salloc"),
            row("neggrad_plus", 0, 0.8, 0.9, 0.3, "deepest"),
            row("rft", 0, 0.8, 0.8, 0.3, "salloc"),
            row("del", 0, 0.8, 0.9, 0.3),
        ]
    )


def test_rows_say_what_moved_and_how_the_forget_set_was_drawn(frame):
    rows = parse_localizations(frame)
    assert rows["strategy"].tolist() == [
        "full", "full", "full", "full", "salloc", "salloc", "deepest", "salloc", "del",
    ]  # fmt: skip
    assert rows["algorithm"].tolist()[-3:] == ["neggrad_plus", "rft", "del"]
    assert set(rows["forget"]) == {"iid"}
    other = pd.DataFrame([row("del", 0, 0.8, 0.9, 0.3, classes="[2, 5]")])
    assert parse_localizations(other)["forget"].tolist() == ["non_iid"]
    with pytest.raises(ValueError, match="needs localized runs"):
        parse_localizations(frame[frame["method"] == "retrain"])


def test_a_gap_is_the_oracle_of_the_same_seed_minus_the_method_in_points(frame):
    rows = with_gaps(parse_localizations(frame))
    one, two = rows[rows["method"] == "neggrad_plus(salloc 0.1)"].to_dict("records")
    assert one["gap/forget/accuracy"] == pytest.approx(10)
    assert two["gap/forget/accuracy"] == pytest.approx(20)
    assert two["gap/mia"] == pytest.approx(-20)
    assert one["gap"] == pytest.approx((10 + 0 + 0 + 10) / 4)
    assert two["gap"] == pytest.approx((20 + 0 + 10 + 20) / 4)
    alone = with_gaps(
        parse_localizations(frame[~((frame["method"] == "retrain") & (frame["seed"] == 1))])
    )
    known = alone[alone["method"] == "neggrad_plus(salloc 0.1)"]["gap"].notna()
    assert known.tolist() == [True, False]


def test_the_table_has_the_oracle_first_then_the_smallest_gap(frame):
    table = gap_table(frame)
    first, second = table.iloc[0], table.iloc[1]
    assert first["algorithm"] == "oracle: its values" and first["n"] == 2
    assert first["forget accuracy"] == pytest.approx(85) and pd.isna(first["gap"])
    assert second["gap"] == 0 and list(table["gap"][1:]) == sorted(table["gap"][1:])
    line = table[(table["localization"] == "salloc") & (table["budget"] == 0.1)].iloc[0]
    assert line["n"] == 2 and line["forget accuracy"] == pytest.approx(15)
    assert line["forget accuracy_ci95"] == pytest.approx(12.7062 * 5, rel=1e-4)  # t of one degree
    assert line["time"] == pytest.approx(0.5)
    assert gap_table(frame[frame["method/localization/share_global"].isna()]).empty
    assert gap_table(frame[~frame["method"].eq("retrain")]).empty


def test_mia_by_correctness_stands_beside_and_older_rows_keep_their_gaps(frame):
    older = gap_table(frame)
    assert "MIA (correctness)" not in older
    newer = frame.assign(mia_correctness=[0.2, None, 0.0, None, 0.1, None, None, 0.2, None])
    table = gap_table(newer)
    assert table["gap"].equals(older["gap"])
    cells = dict(
        zip(
            table["algorithm"] + " " + table["localization"],
            table["MIA (correctness)"],
            strict=True,
        )
    )
    assert cells["oracle: its values -"] == pytest.approx(20)
    assert cells["neggrad_plus salloc"] == pytest.approx(10)
    assert cells["rft salloc"] == 0 and pd.isna(cells["neggrad_plus deepest"])
    assert "| - ± n/a |" not in formats.to_markdown(table)
    unknown = gap_table(frame.assign(mia_correctness=None))
    assert unknown["gap"].equals(older["gap"]) and "MIA (correctness)" not in unknown


def test_a_method_that_chooses_by_itself_is_not_one_of_all_parameters(frame):
    more = pd.DataFrame([row("salun", 0, 0.8, 0.9, **{"config/method.salient_fraction": 0.5})])
    rows = parse_localizations(pd.concat([frame, more], ignore_index=True))
    assert rows["strategy"].iloc[-1] == "own" and rows["strategy"].iloc[0] == "full"


def test_the_table_is_written_for_every_reader(frame, tmp_path):
    paths = formats.save_tables(gap_table(frame), tmp_path / "localization")
    assert [p.suffix for p in paths] == [".csv", ".md", ".tex"]
    text = (tmp_path / "localization.md").read_text().splitlines()
    assert text[0].startswith("| forget | algorithm | localization | budget | seeds | forget acc")
    assert "| 85.0 ± 63.5 |" in text[2]
    assert any("| neggrad_plus | salloc | 0.1 | 2 | 15.0 ± 63.5 |" in line for line in text)
    assert r"neggrad\_plus & salloc & 0.1 & 2 & 15.0 $\pm$ 63.5" in paths[2].read_text()
    assert "forget accuracy_ci95" in pd.read_csv(paths[0])


def test_curves_have_a_line_per_strategy_and_the_oracle(frame):
    made = catalog.draw_figures("localization", frame, None)
    assert set(made) == {"localization_layers", "localization_budgets", "localization_gaps"}
    panels = made["localization_budgets"].axes
    assert [p.get_title() for p in panels[:2]] == ["neggrad plus", "rft"]
    levels = {line.get_label(): line.get_ydata()[0] for line in panels[0].lines}
    assert levels["oracle (retrained)"] == pytest.approx(0.85)
    assert levels["original"] == 1.0 and levels["the algorithm on all parameters"] == 0.5
    drawn = {c.get_label(): c for c in panels[0].containers}
    assert set(drawn) == {"salloc", "deepest"}
    assert drawn["salloc"].lines[0].get_xydata().tolist() == [[0.1, 0.7]]
    assert {c.get_label() for c in panels[1].containers} == {"salloc", "del"}
    assert "the algorithm on all parameters" not in {x.get_label() for x in panels[1].lines}


def test_layers_are_drawn_for_each_budget(frame):
    fig = catalog.draw_figures("localization", frame, None)["localization_layers"]
    assert [a.get_ylabel() for a in fig.axes] == ["share, budget 0.1", "share, budget 0.3"]
    lines = {line.get_label(): list(line.get_ydata()) for line in fig.axes[1].lines}
    assert lines["deepest"] == [0.3, 1.0]
    assert [t.get_text() for t in fig.axes[1].get_xticklabels()] == ["conv", "fc"]


def test_bars_show_the_gaps_and_settings_are_kept_apart(frame):
    other = frame.assign(**{"forget_set/kind": "non_iid"})
    made = catalog.draw_figures("localization", pd.concat([frame, other], ignore_index=True), None)
    assert {f"localization_gaps_{kind}" for kind in ("iid", "non_iid")} <= set(made)
    panel = made["localization_gaps_iid"].axes[0]
    names = [t.get_text() for t in panel.get_yticklabels()]
    widths = dict(zip(names, [b.get_width() for b in panel.patches], strict=True))
    assert widths["neggrad plus"] == pytest.approx(30)
    assert widths["rft, salloc"] == 0 and "neggrad plus, salloc" not in widths  # at 0.3 alone
    assert names[-1] in ("neggrad plus, deepest", "del")


def test_names_of_data_lead_to_no_other_folder(frame):
    other = frame.assign(dataset="../../../etc/x")
    made = catalog.draw_figures("localization", pd.concat([frame, other], ignore_index=True), None)
    assert {"localization_layers_digits", "localization_layers_etc_x"} <= set(made)
    assert not any("/" in stem or "." in stem for stem in made)


def test_localized_runs_without_an_oracle_have_no_main_budget(frame):
    other = frame[frame["method"] != "retrain"].assign(corruption="poison")
    alone = pd.DataFrame([row("retrain", 0, 0.8, 0.9), row("original", 0, 1.0, 0.95)])
    part = pd.DataFrame([row("rft", 1, 0.8, 0.8, 0.3, "salloc")])  # no oracle of its seed
    figures = draw_localization(pd.concat([other, alone, part], ignore_index=True))
    gaps = [name for name in figures if name.startswith("localization_gaps")]
    assert len(gaps) == 1 and figures[gaps[0]].get_suptitle() == ""
    assert main_budget(frame.assign(budget=float("nan"), algorithm="a", strategy="b")) is None
