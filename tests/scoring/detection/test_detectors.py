"""Detectors on planted data: what they find by hand, what they refuse, and that no truth is needed."""

import torch
from pytest import approx, mark, raises
from torch import nn

from unlearn.core.types import ImageSet
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.activation_clustering import ActivationClustering
from unlearn.scoring.detection.base import most_suspicious, precision_recall
from unlearn.scoring.detection.cleanlab import Cleanlab, fold_of, out_of_fold
from unlearn.scoring.detection.confidence import Confidence
from unlearn.scoring.detection.loss import Loss
from unlearn.scoring.detection.spectral_signatures import SpectralSignatures, outlier_score

CLASSES, EACH, WIDTH = 3, 40, 6
PLANTED = torch.arange(8)  # the first of class 0


class Nearest(nn.Module):
    """Says of an image which class centre is the nearest; sure of it, the head being linear."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, CLASSES)
        centre = torch.eye(CLASSES, WIDTH) * 100
        self.head.weight.data = centre / 100
        self.head.bias.data = -centre.square().sum(1) / 200

    def forward(self, image):
        return self.head(image.flatten(1))


def features():
    """Return N points around the class centres; those planted lie elsewhere."""
    label = torch.arange(CLASSES).repeat_interleave(EACH)
    noise = torch.rand(len(label), WIDTH, generator=torch.Generator().manual_seed(0)) * 10
    points = noise + torch.eye(CLASSES, WIDTH)[label] * 100
    points[PLANTED, -1] += 120
    return points.to(torch.uint8), label


def subject(label=None, records=None, subset_models=None):
    points, given = features()
    data = ImageSet(
        image=points[:, None, None],
        label=given if label is None else label,
        index=torch.arange(len(given)),
        num_classes=CLASSES,
        view=lambda image, index: image.float(),
    )
    return ScoringInputs(
        data=data, model=Nearest, records=records or {}, validation=None, test=data,
        subset_models=subset_models or (lambda parts: [Nearest() for _ in parts]),
    )  # fmt: skip


def mislabelled():
    _, label = features()
    wrong = torch.tensor([3, 50, 90, 110])
    label[wrong] = (label[wrong] + 1) % CLASSES
    return label, wrong


def clustering(**options):
    usual = {"reduction": "pca", "num_components": 4, "max_size": 0.35, "min_silhouette": 0.5}
    return ActivationClustering(**usual | {"seed": 0} | options)


def test_quality_by_hand():
    corrupted = torch.zeros(10, dtype=torch.bool)
    corrupted[:4] = True
    found = precision_recall(torch.tensor([2, 3, 8]), corrupted)
    assert found == {"precision": approx(2 / 3), "recall": 0.5}
    assert precision_recall(torch.arange(4), corrupted) == {"precision": 1, "recall": 1}
    assert precision_recall(torch.tensor([9]), corrupted) == {"precision": 0, "recall": 0}


def test_a_ranking_is_cut_by_budget_or_threshold():
    suspicion = torch.tensor([0.1, 0.9, 0.5, 0.8])
    assert most_suspicious(suspicion, 0.5, None).tolist() == [1, 3]
    assert most_suspicious(suspicion, 0.51, None).tolist() == [1, 2, 3]
    assert most_suspicious(suspicion, None, 0.8).tolist() == [1]
    for budget, threshold in ((None, None), (0.1, 0.1)):
        with raises(ValueError, match="give one and set the other to null"):
            Loss(budget=budget, threshold=threshold)
    with raises(ValueError, match=r"budget must be in \(0, 1\), got 5"):
        Loss(budget=5, threshold=None)


def test_loss_finds_wrong_labels_that_the_model_did_not_learn():
    label, wrong = mislabelled()
    assert torch.equal(Loss(budget=4 / 120, threshold=None)(subject(label)), wrong)
    assert torch.equal(Loss(budget=None, threshold=5.0)(subject(label)), wrong)
    assert len(Loss(budget=None, threshold=5.0)(subject())) == 0


def test_confidence_finds_what_was_learned_late():
    mean = torch.ones(120)
    mean[[7, 70]] = torch.tensor([0.2, 0.4])
    case = subject(records={"events/confidence": mean})
    made = Confidence(budget=None, threshold=0.3, mode="online")
    assert made(case).tolist() == [7]
    assert Confidence(budget=2 / 120, threshold=None, mode="online")(case).tolist() == [7, 70]
    assert made.make_recorder().get_options() == {"name": "events", "mode": "online"}


def test_folds_are_even_in_every_class():
    label = torch.arange(120) % 3
    fold = fold_of(label, 5, seed=0)
    for c in range(3):
        assert fold[label == c].bincount().tolist() == [8] * 5
    assert torch.equal(fold, fold_of(label, 5, seed=0))
    assert not torch.equal(fold, fold_of(label, 5, seed=1))


def test_no_sample_is_judged_by_a_model_that_saw_it():
    seen = []

    class Judge(Nearest):
        def forward(self, image):
            asked.append(image.flatten(1))
            return super().forward(image)

    asked: list[torch.Tensor] = []

    def parts(wanted):
        for rows, _ in wanted:
            seen.append(set(rows.tolist()))
            yield Judge()

    case = subject(subset_models=parts)
    probability = out_of_fold(case, 4, seed=0)
    assert probability.sum(1).tolist() == approx([1] * 120)
    flat = case.data.image.flatten(1).float()
    for rows, images in zip(seen, asked, strict=True):
        own = {i for i in range(120) if (images == flat[i]).all(1).any()}
        assert len(rows) == 90
        assert not own & rows
    assert set.intersection(*seen) == set()


def test_confident_learning_finds_wrong_labels_alone():
    label, wrong = mislabelled()
    made = Cleanlab(num_folds=3, filter_by="prune_by_noise_rate", seed=0)
    assert torch.equal(made(subject(label)), wrong)
    assert made.notes["out_of_fold_accuracy"] == approx(116 / 120)
    assert len(made(subject())) == 0
    with raises(ValueError, match="num_folds must be at least 2, got 1"):
        Cleanlab(num_folds=1, filter_by="both", seed=0)
    with raises(ValueError, match="filter_by must be one of prune_by_noise_rate"):
        Cleanlab(num_folds=2, filter_by="all", seed=0)


def test_cleanlab_asks_for_its_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with raises(ValueError, match=r"pip install 'unlearn-bench\[find\]'"):
        Cleanlab(num_folds=2, filter_by="both", seed=0)


@mark.parametrize("reduction", ["pca", "ica"])
def test_a_small_cluster_well_apart_is_found_in_its_class(reduction):
    made = clustering(reduction=reduction, num_components=2 if reduction == "ica" else 4)
    assert torch.equal(made(subject()), PLANTED)
    assert made.notes["classes"] == [0]


def test_clusters_too_large_or_too_near_are_left():
    assert len(clustering(max_size=0.1)(subject())) == 0
    assert len(clustering(min_silhouette=1.0)(subject())) == 0
    flat = subject()
    flat.data.image.zero_()  # nothing to cluster
    assert len(clustering()(flat)) == 0
    for key, value in (("reduction", "tsne"), ("max_size", 0.6), ("min_silhouette", 2)):
        with raises(ValueError, match=f"forget_set.{key} must be"):
            clustering(**{key: value})


def test_outlier_score_by_power_iteration():
    points = features()[0][:EACH].double()
    centred = points - points.mean(0)
    vector = torch.ones(WIDTH, dtype=torch.float64)
    for _ in range(200):
        vector = centred.T @ (centred @ vector)
        vector /= vector.norm()
    assert torch.allclose(outlier_score(points), (centred @ vector) ** 2)


def test_spectral_signatures_find_the_planted_over_all_or_per_class():
    assert torch.equal(
        SpectralSignatures(epsilon=8 / 120, multiple=1.0, rank="all")(subject()), PLANTED
    )
    each = SpectralSignatures(epsilon=0.1, multiple=1.5, rank="class")(subject())
    assert (each // EACH).bincount().tolist() == [6, 6, 6]
    assert set(each[:6].tolist()) <= set(PLANTED.tolist())
    with raises(ValueError, match="rank must be all or class, got one"):
        SpectralSignatures(epsilon=0.1, multiple=1.5, rank="one")
    with raises(ValueError, match=r"must be in \(0, 1\), got 0.7 \* 1.5"):
        SpectralSignatures(epsilon=0.7, multiple=1.5, rank="all")
