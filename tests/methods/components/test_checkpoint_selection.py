"""The checkpoint with the best proxy, and how many images its choice costs."""

import pytest
import torch
from torch import nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.components.checkpoint_selection import BestCheckpoint, limit_measured_samples
from unlearn.methods.gradient_ascent import GradientAscent
from unlearn.methods.neggrad_plus import NegGradPlus
from unlearn.models.inference import compute_accuracy
from unlearn.training.schedules import Constant
from unlearn.training.unlearning import LightningFit

pytestmark = pytest.mark.numeric


def make_set(indices, size):
    index = torch.tensor(indices)
    return ImageSet(
        image=(index % 251).to(torch.uint8)[:, None, None, None].expand(-1, 3, size, size),
        label=index % 3, index=index, num_classes=3, view=lambda image, _: image.float() / 255,
    )  # fmt: skip


def make_request(size, forget=20, every=620):
    return Request(
        forget=make_set(range(forget), size), retain=make_set(range(forget, every), size)
    )


class Counting(nn.Module):
    """A linear classifier that counts the images of its forward passes in eval mode."""

    def __init__(self, size):
        super().__init__()
        self.size, self.measured = size, 0
        self.fc = nn.Linear(3, 3)

    def forward(self, image):
        self.measured += 0 if self.training else len(image)
        return self.fc(image.mean((2, 3)))


def ascend(request, model, engine, **options):
    method = GradientAscent(
        epochs=4, batch_size=10, optimizer=lambda p: torch.optim.SGD(p, lr=1e-5),
        schedule=Constant(), gamma=0.0, select="proxy", batch_norm="train", **options,
    )  # fmt: skip
    method.unlearn(model, request, LightningFit(engine, augment=None, seed=0))
    return method


def make_model(size, forget_accuracy):
    """Return a classifier that always predicts class 0, as a third of the labels are."""
    torch.manual_seed(0)
    model = Counting(size)
    nn.init.zeros_(model.fc.weight)
    model.fc.bias.data = torch.tensor([1.0, 0.0, 0.0])
    assert forget_accuracy == pytest.approx(1 / 3, abs=0.05)
    return model


@pytest.mark.parametrize(
    ("size", "samples", "expected"),
    [(80, None, 256), (80, 50, 50), (80, 600, 600), (80, 10_000, 600), (8, None, 600)],
)
def test_the_proxy_of_a_large_set_is_measured_on_a_sample(size, samples, expected, engine):
    request = make_request(size)
    assert (request.retain.image.numel() > 1e7) == (size == 80)
    model = make_model(size, 7 / 20)
    method = ascend(request, model, engine, select_samples=samples)
    assert method.passes == 4
    assert len(method.best.retain) == expected
    # Passes that cannot beat the best proxy so far are not measured on the retain set.
    rounds, rest = divmod(method.notes["measured_images"] - 5 * 20, expected)
    assert rest == 0 and 1 <= rounds <= 5
    assert model.measured == method.notes["measured_images"]


def test_a_sample_grows_with_the_images_of_a_pass_and_small_sets_are_measured_whole():
    large, small = make_set(range(600), 80), make_set(range(600), 8)
    assert limit_measured_samples(small, 10) is None
    assert [limit_measured_samples(large, n) for n in (10, 1280, 2000)] == [256, 256, 400]


def test_a_network_that_cannot_be_the_best_is_not_measured():
    request, seen = make_request(8), []

    def measure(model, data):
        seen.append(len(data))
        return compute_accuracy(model, data)

    best = BestCheckpoint(
        request, mode="proxy", threshold=0.2, samples=None, images_per_pass=20, measure=measure
    )
    model = make_model(8, 7 / 20)
    best.update(model, 1.0, 0)  # a proxy of 0 whatever the retain accuracy
    assert seen == [] and best.best_value == 0
    best.update(model, 1.0, 1)
    assert best.epoch == 0
    best.update(model, 0.1, 2)
    assert seen == [600] and best.epoch == 2
    assert best.best_value == pytest.approx(0.8 / 3, abs=0.01)
    best.update(model, 0.9, 3)
    assert seen == [600] and best.epoch == 2
    best.update(model, 0.1, 4)  # equal: the first of the best remains
    assert seen == [600, 600] and best.epoch == 2


def test_checks_of_the_forget_set_are_counted(engine):
    model = make_model(8, 7 / 20)
    method = NegGradPlus(
        epochs=2, batch_size=100, optimizer=lambda p: torch.optim.SGD(p, lr=1e-5), beta=0.9,
        schedule=Constant(), gamma=0.0, stop=True, forget_batch_size=10, batch_norm="separate",
    )  # fmt: skip
    method.unlearn(model, make_request(8), LightningFit(engine, augment=None, seed=0))
    assert method.notes["measured_images"] == model.measured == 3 * 20
