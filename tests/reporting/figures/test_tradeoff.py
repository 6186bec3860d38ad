from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from unlearn.reporting.figures import tradeoff

Frame = Callable[..., pd.DataFrame]


def crowd(frame: Frame, count: int) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return frame(*(
        (f"gradient_method_{m}", "poison", d, 0, "ok", h, u, 1.0)
        for m in range(count)
        for h, u in [(0.9 - 0.02 * draw.random(), 0.97 - 0.01 * draw.random())]
        for d in (0.1, 1.0)
    ))  # fmt: skip


def notes(fig: Figure) -> list[Annotation]:
    return [t for t in fig.axes[0].texts if isinstance(t, Annotation)]


def test_points_are_the_means_with_their_errors(rows: pd.DataFrame):
    fig = tradeoff.draw_tradeoff(rows)
    axes = fig.axes[0]
    points = [c for c in axes.containers if c.has_xerr]  # type: ignore[attr-defined]
    at = [(c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]) for c in points]
    assert at == [pytest.approx((0.925, 0.875)), pytest.approx((0.4, 1.0))]
    bar = points[0].lines[2][0].get_segments()[0]
    assert bar[1][0] - bar[0][0] == pytest.approx(2 * np.std([0.8, 0.9, 1, 1], ddof=1) / 2)
    assert [n.get_text() for n in notes(fig)] == ["rem", "npo fast"]


def test_a_single_cell_has_no_error_bars_and_a_failure_no_point(frame: Frame):
    fig = tradeoff.draw_tradeoff(frame(
        ("rem", "poison", 0.5, 0, "ok", 0.9, 0.9, 1.0),
        ("npo", "poison", 0.5, 0, "failed", None, None, 1.0),
    ))  # fmt: skip
    assert [n.get_text() for n in notes(fig)] == ["rem"]
    assert not any(c.has_xerr or c.has_yerr for c in fig.axes[0].containers)  # type: ignore[attr-defined]


def test_labels_of_twenty_four_crowded_methods_do_not_overlap(frame: Frame):
    fig = tradeoff.draw_tradeoff(crowd(frame, 24))
    fig.draw_without_rendering()
    made = notes(fig)
    assert len(made) == 24
    boxes = [Text.get_window_extent(n) for n in made]  # without the lines
    overlaps = sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert overlaps == 0
    inside = fig.axes[0].get_window_extent()
    assert all(inside.x0 <= b.x0 and b.x1 <= inside.x1 for b in boxes)
    assert any(n.arrow_patch is not None for n in made)


def test_worst_cells_as_bars(rows: pd.DataFrame):
    axes = tradeoff.worst_bars(rows).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.3, 0.65])  # type: ignore[attr-defined]
    assert [t.get_text() for t in axes.texts] == ["0.30   poison 0.5", "0.65   poison 0.5"]
    assert list(np.asarray(axes.lines[0].get_xdata())) == pytest.approx([0.4, (1.3 + 2) / 4])
    lost = rows.assign(status="failed", healed=None, utility=None, healed_utility=None)
    both = pd.concat([rows, lost.replace({"rem": "ssd", "npo_fast": "ssd"})])
    assert tradeoff.worst_bars(both).axes[0].texts[0].get_text() == "failed"
