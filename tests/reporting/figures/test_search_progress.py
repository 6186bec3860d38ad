"""The figure of searches: best score so far, and what as many trials are expected to find."""

import numpy as np
import pytest

from unlearn.reporting.figures.search_progress import (
    draw_search_progress,
    expect_best,
    read_studies,
)


def write_study(folder, name, lines):
    (folder / name).mkdir()
    text = "trial,score,pruned,seconds\n" + "".join(f"{line}\n" for line in lines)
    (folder / name / "trials.csv").write_text(text)


def test_the_expected_best_is_that_of_a_draw_without_replacement():
    assert expect_best(np.array([0.4, 0.1, 0.3])) == pytest.approx(
        [0.8 / 3, (0.3 + 0.4 + 0.4) / 3, 0.4]
    )


def test_each_study_has_a_line_of_its_best_score_in_the_order_of_trials(tmp_path):
    write_study(tmp_path, "digits_npo-0a1b", ["2,0.6,False,1", "0,0.5,False,1", "1,0.2,False,1"])
    write_study(tmp_path, "digits_rem-0a1c", ["0,0.7,False,1", "1,0.9,True,1"])
    studies = read_studies(tmp_path)
    assert studies["digits_npo"]["score"].tolist() == [0.5, 0.2, 0.6]
    assert studies["digits_rem"]["score"].tolist() == [0.7]  # a pruned score is of a part
    axes = draw_search_progress(studies).axes[0]
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.5, 0.6]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "digits_npo: 0.60",
        "digits_rem: 0.70",
    ]
