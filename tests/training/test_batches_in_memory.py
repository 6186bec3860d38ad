"""At most one batch of network input is alive while data are read, for training and evaluation."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unlearn.core.stored_images import StoredImages, as_images, read_batches
from unlearn.core.types import ImageSet, InputView, Request
from unlearn.data.datasets.augmentation import Augment
from unlearn.data.datasets.image_files import MemoryImages
from unlearn.methods.finetune import Finetune
from unlearn.models.inference import compute_logits
from unlearn.training.loader import DeferredBatches, RequestLoader, ResidentLoader
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant
from unlearn.training.unlearning import LightningFit

CROP = Augment(crop_padding=2, flip_rate=0.5, cutout=0)


class WatchedView:
    """A view that notes how many of the batches that it made are alive when it makes another."""

    def __init__(self, view: InputView) -> None:
        self.view, self.made, self.alive = view, list[weakref.ref[Tensor]](), list[int]()

    def __call__(self, image: Tensor, index: Tensor) -> Tensor:
        self.alive.append(sum(one() is not None for one in self.made))
        out = self.view(image, index)
        self.made.append(weakref.ref(out))
        return out


def sgd(params):
    return torch.optim.SGD(params, lr=0.01, momentum=0.9)


def store(data: ImageSet) -> ImageSet:
    """Return the same set with images outside of the process, as far as it knows."""
    source = MemoryImages(data.image, torch.arange(len(data)))
    return replace(data, image=as_images(StoredImages(source, torch.arange(len(data)))))


@pytest.fixture(params=["resident", "stored"])
def watched(request, clean) -> tuple[ImageSet, WatchedView]:
    data = store(clean[0]) if request.param == "stored" else clean[0]
    view = WatchedView(data.view)
    return replace(data, view=view), view


def test_no_earlier_batch_is_alive_in_pretraining(watched, network, engine):
    data, view = watched
    recipe = Pretraining(
        epochs=2, batch_size=32, optimizer=sgd, schedule=Constant(), capacity=1.0, density=0.0
    )
    pretrain(network, data, recipe, engine, augment=CROP, seed=0)
    assert len(view.alive) >= 12 and set(view.alive) == {0}


def test_no_earlier_batch_is_alive_in_unlearning(watched, network, engine):
    data, view = watched
    request = Request(data.rows(torch.arange(20)), data.rows(torch.arange(20, 200)))
    method = Finetune(epochs=2, batch_size=32, optimizer=sgd, schedule=Constant())
    method.unlearn(network, request, LightningFit(engine, augment=CROP, seed=0))
    assert len(view.alive) >= 12 and set(view.alive) == {0}


def test_no_earlier_batch_is_alive_in_an_evaluation(watched, network):
    data, view = watched
    compute_logits(network, data, batch_size=32)
    assert len(view.alive) == 7 and set(view.alive) == {0}


def test_batches_that_are_read_ahead_are_not_kept(clean):
    data = store(clean[0])
    parts = [torch.arange(n, n + 10) for n in range(0, 100, 10)]
    made = list[weakref.ref[Tensor]]()
    for rows in read_batches(data.image, parts, torch.device("cpu")):
        assert all(one() is None for one in made)
        made.append(weakref.ref(rows))
        del rows
    assert len(made) == 10


def test_a_trainer_that_looks_ahead_makes_no_batch_ahead(clean):
    view = WatchedView(clean[0].view)
    data = replace(clean[0], view=view)
    loader = RequestLoader(
        Request(data.rows(torch.arange(20)), data.rows(torch.arange(20, 200))),
        uses=lambda epoch: ("retain", "forget"),
        batch_sizes=lambda: {"retain": 32, "forget": 8},
        augment=CROP,
        seed=3,
    )
    plain = [{name: part.image for name, part in batch.items()} for batch in loader]
    view.alive.clear()
    makes = list(DeferredBatches(loader))
    assert len(makes) == len(plain) and not view.alive
    for make, batch in zip(makes, plain, strict=True):
        assert all(torch.equal(part.image, batch[name]) for name, part in make().items())


def test_micro_batches_are_parts_of_the_same_batches(clean):
    whole = ResidentLoader(clean[0], batch_size=32, augment=CROP, seed=1)
    cut = ResidentLoader(clean[0], batch_size=32, augment=CROP, seed=1, parts=4)
    images = (torch.cat([batch.image for batch in loader]) for loader in (whole, cut))
    assert torch.equal(*images)
