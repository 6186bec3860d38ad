"""Requests in a row that follow the current model, and what the score says of it on the way."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import run_id_of_config, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.orchestration.stacking.stacked_cells import prepare_cell
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.sequential_requests import SequentialRequests
from unlearn.pipeline.trained_models import load_original
from unlearn.pipeline.unlearn_job import unlearn_job
from unlearn.reporting.figures.score_histograms import count_histograms, draw_histograms

TINY = (
    "dataset=synthetic", "corruption=none", "model.width=4", "pretraining.epochs=4",
    "pretraining.batch_size=64", "trainer.accelerator=cpu", "forget_set=sequential",
    "forget_set.num_requests=2", "forget_set.size=30", "logger=none", "save_model=false",
)  # fmt: skip
SCORE = ("score=holdout_retraining", "score.batch_size=20", "score.epochs=3")


def job(root, *overrides, score=SCORE):
    given = [*TINY, *score, f"paths.root={root}", *overrides]
    with enable_composition([config_dir()]):
        config = compose_config("unlearn", given, [config_dir()])
        content, who = to_plain_config(config), run_id_of_config(config)
    content.pop("tune")
    folder = root / "results" / who
    folder.mkdir(parents=True, exist_ok=True)
    return Job(content, who, folder, content["names"], build)


def build(node):
    return instantiate(node, _convert_="all")


def answered(root, *overrides):
    """Return requests, rows and folder of a run."""
    own = job(root, *overrides)
    unlearn_job(own)
    rows = [json.loads((own.folder / f"row-{step}.json").read_text()) for step in range(2)]
    return json.loads((own.folder / "forget_set.json").read_text()), rows, own.folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("sequence")


@pytest.fixture(scope="module")
def shared(root):
    return answered(root, "method=original")


def test_a_model_that_does_not_change_is_asked_what_the_original_is(root, shared):
    requests, rows, _ = answered(root, "method=original", "forget_set.shared_requests=false")
    assert requests == shared[0]
    assert [len(part) for part in requests] == [30, 30] and not set(requests[0]) & set(requests[1])
    assert [row["forget_set/kind"] for row in rows] == ["graded anew"] * 2
    assert rows[1]["score_seconds"] != rows[0]["score_seconds"]
    assert rows[1]["forget_set/hash"] == shared[1][1]["forget_set/hash"]  # of both requests
    assert rows[0]["discovery/size"], rows[1]["discovery/size"] == (30, 60)


def test_the_second_request_follows_the_model_that_answered_the_first(root, shared):
    learned = (
        "method=finetune",
        "method.epochs=8",
        "method.batch_size=32",
        "method.optimizer.lr=0.1",
    )
    requests, _, folder = answered(root, *learned, "forget_set.shared_requests=false")
    assert requests[0] == shared[0][0]
    assert requests[1] != shared[0][1]
    assert not set(requests[0]) & set(requests[1])
    assert answered(root, *learned)[0] == shared[0]  # the paired variant
    table = pd.read_csv(folder / "proxy_histogram.csv")
    counts = table.pivot_table(index="answered", columns="part", values="count", aggfunc="sum")
    assert set(counts.sum(axis=1)) == {180}  # all but those held out
    assert counts["forgotten"].tolist() == [0, 30, 60]
    assert counts["next"].tolist() == [30, 30, 0]
    assert (folder / "proxy_histogram.png").stat().st_size > 0


def test_one_request_leaves_no_histogram(root):
    own = job(root, "method=original", "forget_set.num_requests=1")
    unlearn_job(own)
    assert not (own.folder / "proxy_histogram.csv").exists()


def test_histograms_by_hand():
    before, after = np.array([0.0, -1.0, 1.0, 2.0]), np.array([-1.0, -1.0, -1.0, 2.0])
    table = count_histograms([before, after], [np.array([3]), np.array([1])])  # bins of 0.1
    kept = table[table["count"] > 0]
    columns = kept[["answered", "part", "low", "count"]].round(1)
    found = [tuple(row) for row in columns.to_numpy()]
    assert found == [
        (0, "left", -1.0, 1), (0, "left", 0.0, 1), (0, "left", 1.0, 1), (0, "next", 1.9, 1),
        (1, "left", -1.0, 2), (1, "next", -1.0, 1), (1, "forgotten", 1.9, 1),
    ]  # fmt: skip
    panels = draw_histograms(table, "holdout_retraining").axes
    assert [ax.get_title() for ax in panels] == ["before any", "after 1"]
    assert [ax.get_xlabel() for ax in panels] == ["holdout retraining"] * 2
    assert panels[1].patches[0].get_data().values.sum() == 2


def test_a_score_that_is_never_negative_has_bins_of_equal_ratio():
    values = np.array([0.0, 1e-3, 1e-1, 10.0])
    table = count_histograms([values], [np.array([0])])
    one = table[table["part"] == "left"]
    assert table["count"].sum() == 4
    assert one["high"].iloc[-1] == 10 and one["low"].iloc[0] == 0
    assert (one["high"] / one["low"]).iloc[1:].round(6).nunique() == 1
    assert draw_histograms(table, "x").axes[0].get_xscale() == "symlog"


def test_a_score_of_the_originals_training_cannot_follow_the_model(tmp_path):
    for score, said in ((["score=confidence"], "got confidence"), ([], "got none")):
        own = job(tmp_path, "forget_set.shared_requests=false", score=score)
        with pytest.raises(ValueError, match=f"needs a score that works on any model.*{said}"):
            unlearn_job(own)
    assert not (tmp_path / "checkpoints").exists()


def test_a_method_meets_the_scores_of_the_model_it_is_given(root):
    own = job(root, "forget_set.shared_requests=false")
    context = load_with_forget_set(own)
    model = load_original(context)[0]
    row = SequentialRequests(context)
    first = row.select_request(0, context, model)
    other = copy.deepcopy(model)
    torch.nn.init.normal_(other.fc.weight)
    second = row.select_request(1, first, other)
    before, after = (s.task.request().records["score"] for s in (first, second))
    assert torch.equal(before, row.score_history[0]) and torch.equal(after, row.score_history[1])
    assert not torch.equal(before, after)
    assert len(second.task.forget) == 2 and second.task.step == 1


def test_a_row_of_requests_is_made_alone_whoever_chooses_them(root):
    for value in ("true", "false"):
        assert (
            prepare_cell(job(root, "method=finetune", f"forget_set.shared_requests={value}"))
            is None
        )
    one = job(
        root, "method=finetune", "forget_set.shared_requests=false", "forget_set.num_requests=1"
    )
    assert prepare_cell(one) is not None
