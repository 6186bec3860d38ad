"""EU-k forgets what the last k layers knew before it trains them."""

import copy

import pytest
import torch

from unlearn.methods.eu_k import EUk
from unlearn.models.inference import compute_accuracy
from unlearn.models.surgery import draw_unrelated_network, reinitialize_network

pytestmark = pytest.mark.numeric


def test_last_layers_are_drawn_anew_and_the_rest_is_kept(known, task, recipe):
    before = copy.deepcopy(known.state_dict())
    new = draw_unrelated_network(known, 5).state_dict()
    state = EUk(k=2, seed=5, **recipe()).prepare(known, task.request()).state_dict()
    last = ("conv4", "fc") if "conv1.0.weight" in state else ("fc", "norm", "blocks.1.mlp.2")
    for name, value in state.items():
        assert torch.equal(value, (new if name.startswith(last) else before)[name]), name
    assert not torch.equal(state["fc.weight"], before["fc.weight"])


def test_training_starts_from_the_new_layers(resnet, task, recipe, fit):
    request = task.request()
    method = EUk(k=1, seed=2, **recipe(lr=0.05, epochs=5))
    starts = [
        EUk(k=1, seed=seed, **recipe()).prepare(copy.deepcopy(resnet), request)
        for seed in range(24)
    ]
    known = [compute_accuracy(start, request.retain) for start in starts]
    assert sum(known) / len(known) < 0.55  # random last layers guess among three classes
    before = copy.deepcopy(resnet.state_dict())
    healed = method.unlearn(resnet, request, fit)
    assert compute_accuracy(healed, request.retain) > 0.85
    state = healed.state_dict()
    assert all(torch.equal(state[k], before[k]) for k in before if k != "fc.weight")


def test_one_seed_for_all_does_not_bring_back_the_weights_that_training_began_with(
    resnet, task, recipe
):
    began_with = reinitialize_network(resnet, 0)  # the fixture's network was built from seed 0
    model = EUk(k=1, seed=0, **recipe()).prepare(resnet, task.request())
    assert not torch.equal(model.fc.weight, began_with.fc.weight)


def test_the_seed_decides(resnet, task, recipe):
    def head(seed):
        model = EUk(k=1, seed=seed, **recipe()).prepare(copy.deepcopy(resnet), task.request())
        return model.fc.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_too_many_layers_are_refused(resnet, task, recipe):
    with pytest.raises(ValueError, match=r"method.k must be .* 1..9"):
        EUk(k=11, seed=0, **recipe()).prepare(resnet, task.request())
