"""The table of RUM's variants, its intervals, and the figures."""

import math

import numpy as np
import pandas as pd
import pytest

from unlearn.evaluation import metrics, reference_distance
from unlearn.evaluation import retrain_gap as evaluation
from unlearn.evaluation.intervals import confidence_half_width
from unlearn.reporting.figures import catalog
from unlearn.reporting.figures.refined import draw_closeness, draw_scores_against, draw_sequence
from unlearn.reporting.tables.formats import to_csv, to_latex, to_markdown
from unlearn.reporting.tables.refined import METRICS, shorten_table, tabulate_refined, tabulate_rum

RUNS = (
    ("rum(finetune refined)", "refined", 0.9), ("rum(finetune vanilla)", "vanilla", 0.8),
    ("rum(salun shuffle)", "shuffle", 0.5), ("rum(finetune auto)", "auto", 0.96),
    ("rum(finetune meta)", "meta", 0.95), ("npo", None, 0.4), ("original", None, 0.7),
    ("retrain", None, 0.99),
)  # fmt: skip


def rows(seeds=(0, 1, 2), **more):
    out = []
    for seed in seeds:
        for name, mode, tow in RUNS:
            out.append(
                {"method": name, "method/mode": mode, "seed": seed, "step": 0, "corruption": "none",
                 "discovery": 0.5, "run_id": f"{name}-{seed}", "status": "ok", "healed": None,
                 "forget_set/kind": "graded", "tow": tow + 0.01 * seed, "mia_gap": 1 - tow,
                 "tow_mia": tow, "forget/accuracy": 0.9} | more
            )  # fmt: skip
    return pd.DataFrame(out)


def test_half_of_an_interval_by_hand():
    # t(0.975, 2) = 4.302653, s = 0.01
    assert confidence_half_width([0.80, 0.81, 0.82]) == pytest.approx(
        4.302653 * 0.01 / math.sqrt(3)
    )
    assert math.isnan(confidence_half_width([0.5]))


def test_a_row_per_method_and_variant_references_first_the_best_per_part_last():
    table = tabulate_refined(rows())
    assert list(zip(table["method"], table["variant"], strict=True)) == [
        ("retrain", "-"), ("original", "-"), ("finetune", "vanilla"), ("finetune", "refined"),
        ("npo", "-"), ("salun", "shuffle"), ("rum", "meta"), ("rum", "auto"),
    ]  # fmt: skip
    assert list(table["n"]) == [3] * 8
    text = to_markdown(table)
    assert "| finetune | vanilla | 3 | 0.810 ± 0.025 | 0.800 ± 0.000 | 0.200 ± 0.000 |" in text
    assert text.startswith("| method | variant | seeds | ToW | ToW-MIA | MIA gap | forget accuracy")
    assert "tow_ci95" in to_csv(table)
    assert "variant" not in tabulate_refined(rows()[lambda f: f["method/mode"].isna()])


def test_one_seed_has_no_interval_and_says_so():
    assert "| 0.800 ± n/a |" in to_markdown(tabulate_refined(rows(seeds=(0,))))
    assert "nan" not in to_markdown(tabulate_refined(rows(seeds=(0,)))).lower()


def test_another_retrained_model_is_never_marked_as_the_best():
    text = to_latex(tabulate_refined(rows()))
    assert r"\textbf{0.970 $\pm$ 0.025}" in text  # of auto
    assert r"\textbf{1.000" not in text
    assert r"\textbf{0.040 $\pm$ 0.000}" in text  # the lowest gap, not the highest


def test_runs_of_a_seed_are_averaged_before_the_interval():
    table = tabulate_refined(pd.concat([rows(), rows().assign(tow=0.0)]))
    assert list(table["n"]) == [3] * 8
    assert table["tow"][0] == pytest.approx(1.0 / 2)


def test_settings_and_requests_that_differ_have_rows_of_their_own():
    graded = pd.concat([rows(), rows(step=1), rows(**{"forget_set/kind": "random"})])
    table = tabulate_refined(graded)
    assert list(table.columns[:5]) == ["forget_set/kind", "request", "method", "variant", "n"]
    assert len(table) == 3 * 8
    assert set(table["request"]) == {1, 2}


def test_a_lost_model_counts_as_the_worst():
    lost = {"status": "collapsed", "tow": None, "mia_gap": None, "tow_mia": None}
    table = tabulate_refined(pd.concat([rows(seeds=(0,)), rows(seeds=(1,), **lost)]))
    own = table[table["method"] == "npo"].iloc[0]
    assert own[["tow", "mia_gap", "collapsed"]].tolist() == pytest.approx([0.2, 0.8, 1])


def test_the_papers_table_holds_the_settings_of_rum_alone():
    plain = rows(**{"method/mode": None, "forget_set/kind": "random"})
    table = tabulate_rum(pd.concat([rows(), plain]))
    assert len(table) == 8
    assert [c for c in table if not c.endswith("_ci95")] == [
        "method", "variant", "n", "role", "tow", "mia_gap", "tow_mia", "collapsed",
    ]  # fmt: skip
    assert tabulate_rum(plain).empty
    assert tabulate_rum(rows().drop(columns="method/mode")).empty
    ungraded = plain.assign(**{"forget_set/group": None})  # a random set has no such part
    assert len(tabulate_rum(pd.concat([rows(**{"forget_set/group": "mix"}), ungraded]))) == 8


def test_every_column_of_the_table_is_some_metrics():
    known = {"relative_seconds", "test/accuracy"}
    for module in (reference_distance, evaluation, metrics):
        for found in vars(module).values():
            known |= set(getattr(found, "directions", ()))
    assert set(METRICS) <= known


def test_settings_are_in_order_of_their_numbers():
    sizes = [120, 60, 1000]
    table = tabulate_refined(pd.concat([rows(**{"forget_set/size": n}) for n in sizes]))
    assert list(dict.fromkeys(table["forget_set/size"])) == sorted(sizes)


def test_a_terminal_shows_the_headline():
    table = shorten_table(tabulate_refined(rows().assign(**{"klom/test": 1.0, "klom/forget": 2.0})))
    assert {"tow", "mia_gap", "klom/forget"} <= set(table)
    assert not {"klom/test", "klom/test_ci95"} & set(table)
    assert {"tow_ci95", "tow_mia_ci95", "mia_gap_ci95"} == {c for c in table if "_ci95" in c}


def test_a_sequence_has_a_line_per_method_and_an_interval():
    frame = pd.concat([rows(), rows(step=1, tow_so_far=0.5), rows(run_id="of one request")])
    fig = draw_sequence(frame)
    assert [ax.get_ylabel() for ax in fig.axes] == ["ToW", "ToW-MIA", "ToW so far"]
    assert len(fig.axes[0].containers) == 8
    first = fig.axes[2].containers[0].lines[0].get_ydata()
    assert list(first) == pytest.approx([1.0, 0.5])  # that of the first request is its ToW
    with pytest.raises(ValueError, match="several requests"):
        draw_sequence(rows())


def test_requests_that_were_graded_anew_have_lines_of_their_own():
    shared = pd.concat([rows(), rows(step=1, tow_mia_so_far=0.5)])
    anew = shared.assign(**{"forget_set/kind": "graded anew", "tow": 0.1})
    anew["run_id"] = anew["run_id"] + "-anew"
    fig = draw_sequence(pd.concat([shared, anew]))
    assert [ax.get_ylabel() for ax in fig.axes] == ["ToW", "ToW-MIA", "ToW-MIA so far"]
    lines = {c.get_label(): list(c.lines[0].get_ydata()) for c in fig.axes[0].containers}
    assert lines["npo graded"] == pytest.approx([0.41, 0.41])
    assert lines["npo graded anew"] == pytest.approx([0.1, 0.1])


def test_closeness_has_a_dot_per_row_of_the_table():
    fig = draw_closeness(rows())
    assert [ax.get_xlabel().partition(" (")[0] for ax in fig.axes] == ["ToW", "MIA gap", "ToW-MIA"]
    labels = [text.get_text() for text in fig.axes[0].get_yticklabels()]
    assert labels[:3] == ["retrain", "original", "finetune vanilla"]
    ungraded = pd.concat([rows(score="entropy"), rows(score=None)])
    labels = [t.get_text() for t in draw_closeness(ungraded).axes[0].get_yticklabels()]
    assert {"retrain", "entropy retrain"} < set(labels)
    with pytest.raises(ValueError, match="corruption=none"):
        draw_closeness(rows(corruption="poison"))


def test_rows_choose_their_figures():
    assert catalog.choose_figures("auto", rows(), None) == ("closeness",)
    several = pd.concat([rows(), rows(step=1)])
    assert catalog.choose_figures("auto", several, None) == ("closeness", "sequence")
    both = pd.concat([rows(), rows(corruption="poison")])
    assert catalog.choose_figures("auto", both, None) == ("comparison", "closeness")
    assert catalog.choose_figures("auto", rows(tow=None), None) == ()


def test_scores_are_drawn_against_the_reference():
    scores = {"memorization": np.linspace(0, 1, 9), "entropy": np.linspace(1, 0, 9)}
    fig = draw_scores_against(scores, "memorization", {"memorization": 1.0, "entropy": -1.0})
    assert [ax.get_title() for ax in fig.axes] == ["entropy (-1.00)"]
