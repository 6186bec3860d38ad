from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from unlearn.reporting.figures import canvas, planes

Frame = Callable[..., pd.DataFrame]
SCORE = {"original": 0.06, "gradient_ascent": 0.5, "rem": 0.86}


@pytest.fixture
def plane(frame: Frame) -> Callable[..., pd.DataFrame]:
    def make(*tasks: tuple[str, float], scores: dict[str, float] = SCORE) -> pd.DataFrame:
        return frame(*(
            (m, c, d, seed, "ok", v, 1.0, 1.0)
            for m, v in scores.items() for c, d in tasks for seed in range(3)
        ))  # fmt: skip

    return make


def texts(axes: Axes) -> list[str]:
    return [t.get_text() for t in axes.texts]


def test_the_heatmap_shows_every_cell(plane, tmp_path: Path):
    fig = planes.draw_heatmap(
        plane(("random_label", 0.1), ("poison", 0.1), ("poison", 1.0), ("none", 0.1))
    )
    best = fig.axes[0]
    assert best.get_title(loc="left") == "rem   mean 0.86"
    assert [t.get_text() for t in best.get_yticklabels()] == ["poison", "random\nlabel", "none"]
    assert texts(best) == ["0.86", "0.86", "0.86", "-", "0.86", "-"]
    assert best.images[0].get_clim() == (0, 1)
    canvas.save_figure(fig, tmp_path / "heat")


def test_the_heatmap_drops_no_method_and_no_task_that_failed(plane):
    frame = plane(("poison", 0.1), ("random_label", 0.1))
    lost = (frame["method"] == "gradient_ascent") | (frame["corruption"] == "random_label")
    frame.loc[lost, ["healed", "utility", "healed_utility"]] = np.nan
    frame.loc[lost, "status"] = "failed"
    panels = planes.draw_heatmap(frame).axes
    titles = [a.get_title(loc="left") for a in panels[:3]]
    assert titles == ["rem   mean 0.86", "original   mean 0.06", "gradient ascent   failed"]
    assert [texts(a) for a in panels[:3]] == [["0.86", "-"], ["0.06", "-"], ["-", "-"]]


@pytest.mark.parametrize(
    ("value", "label"), [("healed_utility", "healed x utility"), ("utility_full", "utility full")]
)
def test_the_colour_bar_names_the_value(plane, value: str, label: str):
    fig = planes.draw_heatmap(plane(("poison", 0.5)).assign(utility_full=0.9), value)
    assert fig.axes[-1].get_ylabel() == label


def test_many_methods_fill_pages_and_each_has_a_file(plane):
    scores = {f"method_{i}({'etd'})": 0.9 - i / 100 for i in range(planes.PAGE + 2)}
    rates = [i / 10 for i in range(1, 11)]
    figures = planes.draw_heatmaps(plane(*(("poison", r) for r in rates), scores=scores))
    assert list(figures)[:3] == ["heatmap", "heatmap_2", "heatmap_method_0_etd"]
    assert len(figures) == 2 + len(scores)
    shown = [len([a for a in figures[n].axes if a.texts]) for n in list(figures)[:3]]
    assert shown == [planes.PAGE, 2, 1]
    single = figures["heatmap_method_3_etd"]
    assert single.axes[0].get_yticklabels()[0].get_text() == "poison\n(high)"
    # the text of a cell is narrower than the cell
    page = figures["heatmap"]
    page.draw_without_rendering()
    axes = page.axes[0]
    cell = axes.get_window_extent().width / len(rates)
    assert max(t.get_window_extent().width for t in axes.texts) < 0.8 * cell


def test_one_method_needs_no_overview(plane):
    assert list(planes.draw_heatmaps(plane(("poison", 0.5), scores={"rem": 0.5}))) == ["heatmap"]


def test_winners_and_the_seeds_they_win(frame: Frame):
    scores = {"a": (0.9, 0.5, 0.5), "b": (0.6, 0.6, 0.4), "a (IDEAL)": (1, 1, 1)}
    rows = frame(*(
        (m, "poison", 0.5, seed, "ok", v, 1.0, 1.0)
        for m, values in scores.items() for seed, v in enumerate(values)
    ), ("b", "random_label", 0.5, 0, "ok", 0.1, 1.0, 1.0),
       ("b", "random_label", 0.1, 0, "failed", None, None, 1.0))  # fmt: skip
    table = planes.find_winners(rows)
    assert table.to_dict("index")[("poison", 0.5)] == {
        "winner": "a", "mean": pytest.approx(1.9 / 3), "won": 2, "seeds": 3
    }  # fmt: skip
    assert table.loc[("random_label", 0.5), "winner"] == "b" and len(table) == 2


def test_the_winner_map_names_each_cells_best(frame: Frame):
    rows = frame(
        ("gradient_ascent", "poison", 0.1, 0, "ok", 0.9, 1.0, 1.0),
        ("rem", "poison", 0.1, 0, "ok", 0.5, 1.0, 1.0),
        ("rem", "poison", 1.0, 0, "ok", 0.7, 1.0, 1.0),
        ("gradient_ascent", "poison", 1.0, 0, "ok", 0.8, 1.0, 1.0),
        ("rem", "random_label", 0.1, 0, "ok", 0.6, 1.0, 1.0),
    )
    axes = planes.winner_map(rows).axes[0]
    assert texts(axes) == [
        "gradient\nascent\n0.90, 1/1", "gradient\nascent\n0.80, 1/1", "rem\n0.60, 1/1"
    ]  # fmt: skip
    image = np.asarray(axes.images[0].get_array())
    assert np.allclose(image[0, 0], image[0, 1]) and not np.allclose(image[0, 0], image[1, 0])
    assert np.allclose(image[1, 1], 0xE6 / 0xFF)  # nobody ran there
    title = axes.get_title(loc="left").replace("\N{NO-BREAK SPACE}", " ").replace("\n", " ")
    assert title.endswith("Cells won: gradient ascent 2, rem 1")


def test_cells_with_nothing_to_unlearn_are_hatched_and_not_in_the_mean(plane):
    frame = plane(("random_label", 0.1), ("poison", 0.1))
    low = frame["corruption"] == "random_label"
    frame = frame.assign(memorized=0.9).assign(memorized=lambda f: f["memorized"].mask(low, 0.1))
    frame.loc[low, "healed_utility"] = 0.2
    fig = planes.draw_heatmap(frame)
    best = fig.axes[0]
    assert best.get_title(loc="left") == "rem   mean 0.86"
    assert texts(best) == ["0.86", "0.20"]
    (hatched,) = best.patches
    assert hatched.get_hatch() == "////" and hatched.get_xy() == (-0.5, 0.5)
    assert "nothing to unlearn, memorized < 0.3" in fig.get_supxlabel()
    assert list(planes.find_winners(frame).index) == [("poison", 0.1)]
    plain = planes.draw_heatmap(plane(("poison", 0.1)))
    assert not plain.axes[0].patches and plain.get_supxlabel() == "discovery rate"
