from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from unlearn.reporting import plots

HEALED = {"original": 0.05, "gradient_ascent": 0.5, "rem": 0.9}
UTILITY = {"original": 0.99, "gradient_ascent": 0.6, "rem": 0.95}
CURVES = pd.DataFrame(
    {
        "epoch": [0, 0, 1, 1, 2],
        "base/hidden_accuracy_given": [0.9, np.nan, 0.3, np.nan, 0.05],
        "full/hidden_accuracy_given": [0.95, np.nan, 0.97, np.nan, 0.99],
        "loss": [np.nan, 1.0, np.nan, 0.5, np.nan],
    }
)


def rows(seeds: int = 3, tasks: tuple[tuple[str, float], ...] = (("poison", 0.5),)) -> pd.DataFrame:
    out = pd.DataFrame(
        [
            {
                "method": method,
                "corruption": corruption,
                "discovery": discovery,
                "seed": seed,
                "status": "ok",
                "healed": HEALED[method] + 0.01 * seed,
                "utility": UTILITY[method],
                "seconds": 1.0,
            }
            for method in HEALED
            for corruption, discovery in tasks
            for seed in range(seeds)
        ]
    )
    out["healed_utility"] = out["healed"] * out["utility"]
    return out


def texts(axes: Axes) -> list[str]:
    return [t.get_text() for t in axes.texts]


def test_bars_are_sorted_and_hold_the_means():
    axes = plots.comparison(rows()).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["original", "gradient ascent", "rem"]
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert widths == pytest.approx([0.06, 0.51, 0.91, 0.99, 0.6, 0.95])
    # seeds 0.90, 0.91, 0.92: mean 0.91; error 0.01 / sqrt 3, times 0.95: 0.0055
    assert texts(axes)[2] == "0.86 ± 0.01"
    assert len(axes.collections) == 2  # error bars of healed and of utility


def test_one_seed_has_no_error_bars():
    axes = plots.comparison(rows(seeds=1)).axes[0]
    assert not axes.collections and not any("±" in t for t in texts(axes))


def test_a_collapsed_method_is_shown_as_such():
    frame = rows(seeds=1)
    frame.loc[frame["method"] == "gradient_ascent", "status"] = "collapsed"
    frame.loc[frame["method"] == "gradient_ascent", ["healed", "utility", "healed_utility"]] = None
    assert "0.00 (collapsed)" in texts(plots.comparison(frame).axes[0])


def test_redirection_draws_both_networks():
    axes = plots.redirection(CURVES).axes[0]
    full, base = axes.lines
    assert list(np.asarray(full.get_ydata())) == [0.95, 0.97, 0.99]
    assert list(np.asarray(base.get_xdata())) == [0, 1, 2]
    assert list(np.asarray(base.get_ydata())) == [0.9, 0.3, 0.05]
    with pytest.raises(ValueError, match="no columns full/hidden_accuracy_given"):
        plots.redirection(CURVES.drop(columns="full/hidden_accuracy_given"))


def test_the_demo_has_two_panels_if_there_are_curves():
    assert len(plots.demo(rows(), CURVES).axes) == 2
    assert len(plots.demo(rows(), None).axes) == 1
    assert len(plots.demo(rows(), CURVES[["epoch", "loss"]]).axes) == 1


def test_the_heatmap_shows_every_cell(tmp_path: Path):
    tasks = (("random_label", 0.1), ("poison", 0.1), ("poison", 1.0), ("none", 0.1))
    fig = plots.heatmap(rows(tasks=tasks))
    best = fig.axes[0]
    assert best.get_title(loc="left") == "rem   mean 0.86"
    labels = [t.get_text() for t in best.get_yticklabels()]
    assert labels == ["poison", "random\nlabel", "none"]
    assert texts(best) == ["0.86", "0.86", "0.86", "-", "0.86", "-"]
    plots.save(fig, tmp_path / "heat")


def test_the_heatmap_drops_no_method_and_no_task_that_failed():
    frame = rows(tasks=(("poison", 0.1), ("random_label", 0.1)))
    lost = (frame["method"] == "gradient_ascent") | (frame["corruption"] == "random_label")
    frame.loc[lost, ["healed", "utility", "healed_utility"]] = np.nan
    frame.loc[lost, "status"] = "failed"
    panels = plots.heatmap(frame).axes
    titles = [a.get_title(loc="left") for a in panels[:3]]
    assert titles == ["rem   mean 0.86", "original   mean 0.06", "gradient ascent   failed"]
    assert [texts(a) for a in panels[:3]] == [["0.86", "-"], ["0.06", "-"], ["-", "-"]]


@pytest.mark.parametrize(
    ("value", "label"), [("healed_utility", "healed x utility"), ("utility_full", "utility full")]
)
def test_the_colour_bar_names_the_value(value: str, label: str):
    fig = plots.heatmap(rows().assign(utility_full=0.9), value)
    assert fig.axes[-1].get_ylabel() == label


def test_figures_are_saved_whole_and_alike(tmp_path: Path):
    stem = tmp_path / "new" / "rate-0.5"
    paths = plots.save(plots.demo(rows(), CURVES), stem)
    assert [p.name for p in paths] == ["rate-0.5.png", "rate-0.5.pdf"]
    assert {p.name for p in stem.parent.iterdir()} == {p.name for p in paths}
    with Image.open(paths[0]) as image:
        assert image.size[0] > 1000 and len(np.unique(np.asarray(image))) > 50
    pdf = paths[1].read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf
    plots.save(plots.demo(rows(), CURVES), stem)
    assert paths[1].read_bytes() == pdf
