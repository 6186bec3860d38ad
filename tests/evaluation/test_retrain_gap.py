"""Gaps, ToW-MIA, entanglement: by hand, in closed form, at their extremes."""

from dataclasses import replace

import pytest
import torch

from unlearn.data.corruption.clean import Clean
from unlearn.data.task import Task
from unlearn.evaluation import retrain_gap
from unlearn.evaluation.evaluator import evaluate_metrics
from unlearn.evaluation.membership_metrics import by_loss, compute_attacks
from unlearn.evaluation.metrics import compute_tow
from unlearn.evaluation.predictions import Predictions


@pytest.fixture
def plain(clean):
    """A task without corruption: 20 of 200 samples are to be forgotten."""
    train, truth = Clean()(clean[0], count=0, seed=0)
    return Task(train, clean[1], truth, (torch.arange(20),))


def outputs(label, wrong, confident=4.0):
    """Return logits that miss the first ``wrong`` labels."""
    said = label.clone()
    said[:wrong] = (said[:wrong] + 1) % 3
    return confident * torch.nn.functional.one_hot(said, 3).float()


def model(task, forget=0, retain=0, test=0, **more):
    train = torch.cat(
        [outputs(task.train.label[:20], forget), outputs(task.train.label[20:], retain)]
    )
    return Predictions(train, train, outputs(task.test.label, test), None, **more)


def test_the_retrained_model_itself_is_perfect(plain):
    p = model(plain, 3, 5, 6, seconds=2.0)
    row = (
        retrain_gap.compute_gaps(p, plain, p)
        | retrain_gap.compute_mia(p, plain, p)
        | compute_tow(p, plain, p)
    )
    row |= retrain_gap.relative_time(p, plain, p)
    assert row["tow"] == row["tow_mia"] == row["relative_seconds"] == 1
    assert all(v == 0 for k, v in row.items() if k.endswith(("gap", "disagreement")))


def test_gaps_and_tow_by_hand(plain):
    ours, theirs = model(plain, 2, 0, 6), model(plain, 10, 18, 12)
    row = retrain_gap.compute_gaps(ours, plain, theirs)
    assert row["forget/accuracy"] == pytest.approx(0.9)
    assert row["forget/accuracy_gap"] == pytest.approx(0.4)
    assert row["retain/accuracy_gap"] == pytest.approx(0.1)
    assert row["test/accuracy_gap"] == pytest.approx(0.1)
    assert row["forget/disagreement"] == pytest.approx(8 / 20)
    assert compute_tow(ours, plain, theirs)["tow"] == pytest.approx(0.6 * 0.9 * 0.9)


def test_disagreement_sees_what_accuracy_does_not(plain):
    ours, theirs = model(plain, 10), model(plain, 10)
    theirs.train[:20] = theirs.train[:20].flip(0)
    other = plain.train.label[:20].clone()
    theirs.train[:20] = 4 * torch.nn.functional.one_hot(other, 3).float()
    theirs.train[10:20] = outputs(other[10:], 10)
    row = retrain_gap.compute_gaps(ours, plain, theirs)
    assert row["forget/accuracy_gap"] == 0
    assert row["forget/disagreement"] == 1


def spread(confidence, count):
    """Return a little scatter around a confidence, as logits of three classes with label 0."""
    p = confidence + torch.linspace(-0.02, 0.02, count)
    return torch.stack([p, (1 - p) / 2, (1 - p) / 2], 1).log()


def inferred(task, forget):
    """Return predictions of a model that is sure of retain samples and unsure of test samples."""
    task = replace(
        task,
        train=replace(task.train, label=torch.zeros(200).long()),
        test=replace(task.test, label=torch.zeros(60).long()),
    )
    train = torch.cat([spread(forget, 20), spread(0.95, 180)])
    return task, Predictions(train, train, spread(0.6, 60), None)


def test_mia_counts_what_looks_like_the_test_set(plain):
    task, unseen = inferred(plain, forget=0.6)
    _, seen = inferred(plain, forget=0.95)
    options = {"feature": "confidence", "members": "stratified", "seed": 0}
    assert retrain_gap.attack_forget_set(unseen, task, **options) == 1
    assert retrain_gap.attack_forget_set(seen, task, **options) == 0
    row = retrain_gap.compute_mia(seen, task, unseen)
    assert (row["mia"], row["mia_retrained"], row["mia_gap"], row["tow_mia"]) == (0, 1, 1, 0)
    with pytest.raises(ValueError, match=r"feature of confidence.*got loss"):
        retrain_gap.attack_forget_set(seen, task, **options | {"feature": "loss"})


def test_mia_by_correctness_counts_the_forget_samples_that_are_wrong(plain):
    # Of the retain set all labels are met, of the test set none: who is wrong looks unseen.
    ours, theirs = model(plain, forget=5, test=60), model(plain, forget=12, test=60)
    row = retrain_gap.compute_mia(ours, plain, theirs)
    assert row["mia_correctness"] == pytest.approx(5 / 20)
    assert row["mia_correctness_retrained"] == pytest.approx(12 / 20)
    assert row["mia_correctness_gap"] == pytest.approx(7 / 20)
    task, unsure = inferred(plain, forget=0.6)  # right, but with little confidence
    row = retrain_gap.compute_mia(unsure, task, unsure)
    assert (row["mia"], row["mia_correctness"]) == (1, 0)


def test_the_attack_learns_from_so_many_samples_at_most(plain, monkeypatch):
    seen, real = [], retrain_gap.classify_membership

    def watched(members, others, targets):
        seen.append((len(members), len(others), len(targets)))
        return real(members, others, targets)

    monkeypatch.setattr(retrain_gap, "classify_membership", watched)
    for limit in (retrain_gap.LIMIT, 12):
        monkeypatch.setattr(retrain_gap, "LIMIT", limit)
        retrain_gap.attack_forget_set(
            model(plain), plain, feature="confidence", members="stratified", seed=0
        )
    assert seen == [(60, 60, 20), (12, 12, 20)]


def test_further_features_and_a_threshold_on_the_loss(plain):
    task, unseen = inferred(plain, forget=0.6)
    _, seen = inferred(plain, forget=0.95)
    row = evaluate_metrics({"attacks": compute_attacks}, seen, task, unseen)
    for feature in ("entropy", "modified_entropy", "probabilities"):
        assert row[f"mia_{feature}"] == 0, feature
        assert row[f"mia_{feature}_retrained"] == row[f"mia_{feature}_gap"] == 1, feature
    assert row["loss_attack/auc"] == row["loss_attack/tpr"] == 1
    assert row["loss_attack/auc_retrained"] == pytest.approx(0.5, abs=0.05)
    assert row["loss_attack/tpr_retrained"] < 0.1
    assert set(compute_attacks.directions) == set(row)


def test_a_threshold_on_the_loss_by_hand():
    def said(*p):
        return torch.tensor([[x, 1 - x] for x in p]).log(), torch.zeros(len(p)).long()

    # Of the 2 x 3 pairs the forget sample has the lower loss in (0.9: 3, 0.5: 2).
    auc, tpr = by_loss(said(0.9, 0.5), said(0.8, 0.4, 0.3), 0.01)
    assert auc == pytest.approx(5 / 6)
    assert tpr == 0.5
    assert by_loss(said(0.9, 0.5), said(0.8, 0.4, 0.3), 0.34)[1] == 1


def test_accuracy_per_third_by_score(plain):
    task = replace(plain, records={"score": torch.arange(200.0).flip(0)})
    row = retrain_gap.compute_score_group_accuracies(model(task, forget=7), task, model(task))
    # the score falls with the index: the seven misses are the most memorized third (6 of 20), and 1
    assert row["forget/accuracy_high"] == 0
    assert row["forget/accuracy_mid"] == pytest.approx(6 / 7)
    assert row["forget/accuracy_low"] == 1
    assert row["forget/accuracy_gap_high"] == 1


def test_what_is_absent_has_no_value(plain):
    every = {
        n: getattr(retrain_gap, n)
        for n in (
            "compute_gaps",
            "compute_mia",
            "compute_score_group_accuracies",
            "compute_entanglement",
        )
    }
    row = evaluate_metrics(every, model(plain), plain)
    assert set(row.values()) == {None}
    phi = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    row = evaluate_metrics(every, model(plain, embedding=phi), plain, model(plain))
    assert row["forget_set/entanglement"] > 0
    assert row["forget/accuracy_low"] is None  # no score
    assert not any(k.startswith("failed/") for k in row)


def test_a_later_request_has_an_earlier_ones_samples_in_neither_set(plain):
    task = replace(plain, forget=(torch.arange(20), torch.arange(20, 50)), step=1)
    assert task.forget_indices().tolist() == list(range(20, 50))
    assert task.retain_indices().tolist() == list(range(50, 200))
    assert len(task.request().retain) == 150


def test_tow_so_far_has_all_requests_as_its_forget_set(plain):
    task = replace(plain, forget=(torch.arange(20), torch.arange(20, 50)), step=1)
    ours, theirs = model(task, forget=5), model(task, retain=10)  # of the first request, the second
    row = retrain_gap.compute_gaps(ours, task, theirs)
    assert row["forget/accuracy_gap"] == pytest.approx(10 / 30)
    assert row["retain/accuracy_gap"] == row["test/accuracy_gap"] == 0
    assert row["tow_so_far"] == pytest.approx(1 - (10 - 5) / 50)
    assert row["so_far/accuracy"] == pytest.approx(1 - 5 / 50)
    assert row["so_far/accuracy_gap"] == pytest.approx((10 - 5) / 50)
    assert row["so_far/disagreement"] == pytest.approx((10 + 5) / 50)
    assert "tow_so_far" not in retrain_gap.compute_gaps(ours, replace(task, step=0), theirs)


def test_mia_so_far_has_all_requests_as_its_targets(plain):
    task, ours = inferred(plain, forget=0.6)
    _, theirs = inferred(plain, forget=0.95)
    task = replace(task, forget=(torch.arange(20), torch.arange(20, 50)), step=1)
    row = retrain_gap.compute_mia(
        ours, task, theirs
    )  # the second request looks like a member to both
    assert (row["mia"], row["mia_gap"]) == (0, 0)
    assert row["so_far/mia"] == pytest.approx(20 / 50)
    assert row["so_far/mia_retrained"] == 0
    assert row["tow_mia_so_far"] == pytest.approx(1 - 20 / 50)
    assert "so_far/mia" not in retrain_gap.compute_mia(ours, replace(task, step=0), theirs)
