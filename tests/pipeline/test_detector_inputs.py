"""The image a detector starts from, and the trusted set it may use."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from unlearn.data.corruption.poison import Poison
from unlearn.data.corruption.triggers import recover_pixels
from unlearn.data.forget_sets.discovered import Discovered
from unlearn.data.task import Task
from unlearn.data.trusted_sets.audit import Audit
from unlearn.data.trusted_sets.clean_rows import CleanRows
from unlearn.models.inference import compute_logits
from unlearn.pipeline.detector_inputs import (
    add_detector_inputs,
    choose_query,
    identify_detector_inputs,
)
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.delta_influence import DeltaInfluence
from unlearn.scoring.detection.loss import Loss
from unlearn.scoring.detection.scan import Scan

SQUARE = {"trigger_size": 3, "corner": "bottom_right", "value": None, "exclude_target_class": False}


def detector(image=None) -> DeltaInfluence:
    return DeltaInfluence(image=image, num_queries=5, tolerance=1, same_label=True, seed=0)


@pytest.fixture
def poisoned(clean) -> Task:
    train, truth = Poison(target_class=0, **SQUARE)(clean[0], count=30, seed=0)
    return Task(train, clean[1], truth, Discovered(nested=True)(truth, rate=0.5, seed=0))


def context_of(task, source=None):
    config = {"trusted": None if source is None else {"size": 9}, "seeds": {"trusted": 3}}
    job = SimpleNamespace(node=lambda key: source, config=config)
    return SimpleNamespace(
        task=task, job=job, dataset=SimpleNamespace(train=task.train), held_out=None
    )


def subject_of(task, model) -> ScoringInputs:
    return ScoringInputs(
        data=task.train, model=lambda: model.eval(), records={}, validation=None, test=task.test,
        subset_models=lambda parts: [],
    )  # fmt: skip


class Constant(nn.Module):
    """Says the same class of every image."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(50 * torch.eye(3)[number])

    def forward(self, image):
        return self.logits.expand(len(image), -1)


def test_a_drawn_query_is_a_triggered_test_image_that_goes_to_the_target(poisoned):
    subject = subject_of(poisoned, Constant(0))
    made = detector()
    query = choose_query(context_of(poisoned), made, subject)
    row = made.notes["image"]
    assert poisoned.test.label[row] != 0 and query.label.tolist() == [0]
    trigger = poisoned.truth.trigger
    stamped = trigger.stamp_trigger(
        poisoned.test.view(poisoned.test.image[row : row + 1], torch.zeros(1, dtype=torch.long))
    )
    assert torch.equal(query.image, recover_pixels(stamped, poisoned.truth.clean_view))
    assert not torch.equal(query.image, poisoned.test.image[row : row + 1])
    again = detector()
    choose_query(context_of(poisoned), again, subject)
    assert again.notes == made.notes


def test_a_model_without_errors_explains_nothing(poisoned):
    with pytest.raises(ValueError, match="misclassifies no test image with the trigger"):
        choose_query(context_of(poisoned), detector(), subject_of(poisoned, Constant(1)))


def test_a_named_row_or_file_is_taken_as_it_is(poisoned, network, tmp_path):
    subject, context = subject_of(poisoned, network), context_of(poisoned)
    query = choose_query(context, detector(7), subject)
    assert torch.equal(query.image[0], poisoned.test.image[7])
    said = compute_logits(network.eval(), poisoned.test.rows(torch.tensor([7]))).argmax(1)
    assert torch.equal(query.label, said)
    pixel = poisoned.test.image[7, 0].numpy()
    path = tmp_path / "wrong.png"
    Image.fromarray(pixel).save(path)
    assert torch.equal(choose_query(context, detector(str(path)), subject).image, query.image)
    with pytest.raises(ValueError, match=r"a row in 0\.\.59 of the test set, got 60"):
        choose_query(context, detector(60), subject)
    with pytest.raises(ValueError, match=r"cannot read .*absent\.png"):
        choose_query(context, detector(str(tmp_path / "absent.png")), subject)


def test_a_trusted_set_goes_to_detectors_that_use_one(poisoned, network):
    subject = subject_of(poisoned, network)
    source = CleanRows(size=9, balanced=True, seed=0)
    scan = Scan(threshold=7.39, cut="midpoint", seed=0)
    given = add_detector_inputs(context_of(poisoned, source), scan, subject).trusted
    assert given is not None and len(given) == 9
    assert not poisoned.truth.corrupted[given.index].any()
    assert add_detector_inputs(context_of(poisoned), scan, subject).trusted is None
    plain = Loss(budget=0.1, threshold=None)
    assert add_detector_inputs(context_of(poisoned, source), plain, subject) == subject
    audit = Audit(size=9, balanced=True, seed=0, sees="any")
    with pytest.raises(ValueError, match="trusted=audit judges what is left after a detector"):
        add_detector_inputs(context_of(poisoned, audit), scan, subject)


def test_the_cache_knows_the_image_and_the_trusted_set(tmp_path):
    keys = []
    for content in (b"a", b"b"):
        path = tmp_path / "x.png"
        path.write_bytes(content)
        keys.append(identify_detector_inputs({}, detector(str(path))))
    assert keys[0] != keys[1]
    scan = Scan(threshold=7.39, cut="midpoint", seed=0)
    config = {"trusted": {"size": 9}, "seeds": {"trusted": 3}}
    assert identify_detector_inputs(config, scan) == {"trusted": {"size": 9}, "trusted_seed": 3}
    assert identify_detector_inputs(config, Loss(budget=0.1, threshold=None)) == {}
