"""Membership inference: features and the draw of members by hand, the attack at its extremes."""

import pytest
import torch
from sklearn.svm import SVC

from unlearn.evaluation.membership_inference import FEATURES, classify_membership, draw_stratified


def features(name, p, label):
    return FEATURES[name](torch.tensor([p]).log(), torch.tensor([label])).flatten().tolist()


def test_features_by_hand():
    p = [0.7, 0.2, 0.1]
    assert features("confidence", p, 1) == pytest.approx([0.2])
    assert features("correctness", p, 1) == [0]
    assert features("correctness", p, 0) == [1]
    assert features("entropy", p, 0) == pytest.approx([0.8018], abs=1e-4)
    # -(0.3 ln 0.7) - 0.2 ln 0.8 - 0.1 ln 0.9
    assert features("modified_entropy", p, 0) == pytest.approx([0.16217], abs=1e-4)
    assert features("probabilities", p, 2) == pytest.approx(p)


def test_certainty_has_no_entropy_and_no_nan():
    sure = torch.tensor([[1000.0, 0.0]])
    for label in (0, 1):
        for feature in FEATURES.values():
            assert torch.isfinite(feature(sure, torch.tensor([label]))).all()
    assert FEATURES["entropy"](sure, torch.tensor([0])).item() == 0


def test_members_are_drawn_by_class_and_by_seed():
    label = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    drawn = draw_stratified(label, 20, seed=0)
    assert torch.bincount(label[drawn]).tolist() == [12, 6, 2]
    assert len(drawn.unique()) == 20
    assert torch.equal(drawn, draw_stratified(label, 20, seed=0))
    assert not torch.equal(drawn, draw_stratified(label, 20, seed=1))
    assert len(draw_stratified(label, 7, seed=0)) == 7  # 4.2, 2.1, 0.7
    assert torch.bincount(label[draw_stratified(label, 7, seed=0)]).tolist() == [4, 2, 1]
    with pytest.raises(ValueError, match="cannot draw 101"):
        draw_stratified(label, 101, seed=0)


def draw(low, high, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 1, generator=generator)


def test_the_attack_tells_what_looks_unseen():
    members, others = draw(0.8, 1.0, 100, 0), draw(0.0, 0.5, 100, 1)
    assert classify_membership(members, others, draw(0.0, 0.5, 40, 2)) == 1
    assert classify_membership(members, others, draw(0.8, 1.0, 40, 3)) == 0
    both = torch.cat([draw(0.8, 1.0, 30, 3), draw(0.0, 0.5, 10, 2)])
    assert classify_membership(members, others, both) == 0.25


@pytest.mark.parametrize(("seen", "unseen"), [(0.99, 0.8), (0.6, 0.55), (0.4, 0.9)])
def test_equal_samples_are_learned_from_at_once_and_nothing_changes(seen, unseen):
    members, others = (draw(0, 1, 300, s) < p for s, p in ((0, seen), (1, unseen)))
    targets = torch.tensor([[0.0], [1.0], [1.0]])
    features = torch.cat([members, others]).float().numpy()
    label = [1] * 300 + [0] * 300
    plain = SVC(C=3, kernel="rbf", gamma="auto").fit(features, label)
    expected = (plain.predict(targets.numpy()) == 0).mean()
    assert classify_membership(members.float(), others.float(), targets) == expected


def test_the_attack_wants_balanced_classes():
    with pytest.raises(ValueError, match="got 3 and 2"):
        classify_membership(draw(0, 1, 3, 0), draw(0, 1, 2, 0), draw(0, 1, 1, 0))
