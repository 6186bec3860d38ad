from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from unlearn.reporting.figures import canvas, method_bars

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
    axes = method_bars.draw_comparison(rows()).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["original", "gradient ascent", "rem"]
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert widths == pytest.approx([0.06, 0.51, 0.91, 0.99, 0.6, 0.95])
    # seeds 0.90, 0.91, 0.92: mean 0.91; error 0.01 / sqrt 3, times 0.95: 0.0055
    assert texts(axes)[2] == "0.86 ± 0.01"
    assert len(axes.collections) == 2  # error bars of healed and of utility


def test_each_corruption_has_a_panel_with_the_methods_in_one_order():
    frame = rows(tasks=(("poison", 0.5), ("random_label", 0.5), ("mine", 0.5)))
    best = (frame["method"] == "original") & (frame["corruption"] == "mine")
    frame.loc[best, "healed_utility"] = 1.0  # first in its panel, second in the mean
    panels = method_bars.draw_corruptions(frame).axes
    titles = [axes.get_title() for axes in panels]
    assert titles == ["random label\nlow regularity", "poison\nhigh regularity", "mine"]
    labels = [t.get_text() for t in panels[0].get_yticklabels()]
    assert labels == ["gradient ascent", "original", "rem"]
    # 0.91 x 0.95 of rem; original 0.06 x 0.99, but 1 in the panel of its own
    assert [texts(axes) for axes in panels[::2]] == [
        ["0.31", "0.06", "0.86"],
        ["0.31", "1.00", "0.86"],
    ]


def test_one_seed_has_no_error_bars():
    axes = method_bars.draw_comparison(rows(seeds=1)).axes[0]
    assert not axes.collections and not any("±" in t for t in texts(axes))


def test_a_collapsed_method_is_shown_as_such():
    frame = rows(seeds=1)
    frame.loc[frame["method"] == "gradient_ascent", "status"] = "collapsed"
    frame.loc[frame["method"] == "gradient_ascent", ["healed", "utility", "healed_utility"]] = None
    assert "0.00 (collapsed)" in texts(method_bars.draw_comparison(frame).axes[0])


def test_redirection_draws_both_networks():
    axes = method_bars.draw_redirection(CURVES).axes[0]
    full, base = axes.lines
    assert list(np.asarray(full.get_ydata())) == [0.95, 0.97, 0.99]
    assert list(np.asarray(base.get_xdata())) == [0, 1, 2]
    assert list(np.asarray(base.get_ydata())) == [0.9, 0.3, 0.05]
    with pytest.raises(ValueError, match="no columns full/hidden_accuracy_given"):
        method_bars.draw_redirection(CURVES.drop(columns="full/hidden_accuracy_given"))


def test_redirection_is_the_mean_of_runs_of_which_the_last_value_stays():
    short = CURVES[CURVES["epoch"] < 2].assign(run_id="r1", corruption="random_label")
    both = pd.concat([CURVES.assign(run_id="r0", corruption="random_label"), short])
    poison = CURVES.assign(run_id="r2", corruption="poison")
    fig = method_bars.draw_redirection(pd.concat([both, poison]))
    assert [a.get_title(loc="right") for a in fig.axes] == ["poison", "random label"]
    base = fig.axes[1].lines[1]
    # epoch 2: 0.05 of the long run, 0.3 kept of the short one
    assert list(np.asarray(base.get_ydata())) == pytest.approx([0.9, 0.3, 0.175])
    assert len(fig.axes[1].collections) == 2 and not fig.axes[0].collections


def test_the_demo_has_two_panels_if_there_are_curves():
    assert len(method_bars.draw_demo(rows(), CURVES).axes) == 2
    assert len(method_bars.draw_demo(rows(), None).axes) == 1


def test_figures_are_saved_whole_and_alike(tmp_path: Path):
    stem = tmp_path / "new" / "rate-0.5"
    paths = canvas.save_figure(method_bars.draw_demo(rows(), CURVES), stem)
    assert [p.name for p in paths] == ["rate-0.5.png", "rate-0.5.pdf"]
    assert {p.name for p in stem.parent.iterdir()} == {p.name for p in paths}
    with Image.open(paths[0]) as image:
        assert image.size[0] > 1000 and len(np.unique(np.asarray(image))) > 50
    pdf = paths[1].read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf
    canvas.save_figure(method_bars.draw_demo(rows(), CURVES), stem)
    assert paths[1].read_bytes() == pdf
