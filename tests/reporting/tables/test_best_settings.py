"""The best of several settings per corruption, chosen by the ground truth."""

import pandas as pd
import pytest

from unlearn.reporting.tables.best_settings import find_varied_options, tabulate_best_settings


def row(method, corruption, rate, product, seed=0):
    return {
        "method": method, "corruption": corruption, "discovery": 0.5, "seed": seed,
        "dataset": "digits", "model": "resnet9", "corrupted": 0.05, "healed_utility": product,
        "config/method.optimizer.lr": rate, "config/method.seed": seed, "config/method.epochs": 5,
    }  # fmt: skip


@pytest.fixture
def frame():
    products = {
        "poison": {0.1: (0.9, 0.7), 0.2: (0.4, 0.4)},
        "random_label": {0.1: (0.2, 0.2), 0.2: (0.6, 0.4)},
    }
    rows = [
        row("npo", kind, rate, value, seed)
        for kind, rates in products.items()
        for rate, values in rates.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame([*rows, row("rem", "poison", 0.1, 1.0), row("rem", "poison", 0.1, 0.9, 1)])


def test_the_oracle_takes_the_best_setting_of_each_corruption(frame):
    (found,) = tabulate_best_settings(frame).to_dict("records")
    assert found["method"] == "npo (IDEAL)" and found["settings"] == 2
    assert found["poison"] == pytest.approx(0.8) and found["random_label"] == pytest.approx(0.5)
    assert found["ideal"] == pytest.approx(0.65)
    assert found["one"] == pytest.approx(0.5)  # lr 0.1: (0.8 + 0.2) / 2; lr 0.2: (0.4 + 0.5) / 2
    assert found["options"] == "poison: optimizer.lr=0.1; random_label: optimizer.lr=0.2"


def test_only_options_that_differ_within_a_cell_make_settings(frame):
    assert find_varied_options(frame[frame["method"] == "npo"]) == ["config/method.optimizer.lr"]
    assert tabulate_best_settings(
        frame[frame["method"] == "rem"]
    ).empty  # its seeds differ, not its options
    missing = frame.assign(
        healed_utility=frame["healed_utility"].where(frame["corruption"] == "poison")
    )
    assert tabulate_best_settings(missing)["random_label"].tolist() == [0.0]  # collapsed: 0
