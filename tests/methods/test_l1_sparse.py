"""L1-sparse shrinks the sum of all absolute parameters while it learns the retain set."""

import copy

import pytest
import torch
from torch.nn import functional as F

from unlearn.methods.finetune import Finetune
from unlearn.methods.l1_sparse import L1Sparse, penalty_weight

pytestmark = pytest.mark.numeric


def size(model):
    return sum(p.abs().sum().item() for p in model.parameters())


def test_the_penalty_fades():
    assert [penalty_weight(e, 4, 0, 1.0) for e in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [penalty_weight(e, 4, 2, 1.0) for e in range(4)] == [1, 0.5, 0, 0]
    assert penalty_weight(0, 2, 2, 1.0) == 0


def test_loss_by_hand(resnet, task, recipe):
    request = task.request()
    method = L1Sparse(gamma=0.01, free_epochs=0, **recipe())
    method.prepare(resnet.eval(), request)
    batch = next(request.retain.batches(50))
    with torch.no_grad():
        loss = method.loss(resnet, {"retain": batch}).item()
        plain = F.cross_entropy(resnet(batch.image), batch.label).item()
    assert loss == pytest.approx(plain + 0.01 * size(resnet), rel=1e-5)


def test_it_shrinks_and_without_a_penalty_it_is_fine_tuning(resnet, task, recipe, fit):
    twin, third = copy.deepcopy(resnet), copy.deepcopy(resnet)
    plan = recipe(lr=0.02, epochs=2, weight_decay=0.0)
    plain = Finetune(**plan).unlearn(resnet, task.request(), fit)
    none = L1Sparse(gamma=0.0, free_epochs=0, **plan).unlearn(twin, task.request(), fit)
    sparse = L1Sparse(gamma=0.003, free_epochs=0, **plan).unlearn(third, task.request(), fit)
    for key, value in plain.state_dict().items():
        assert torch.allclose(value, none.state_dict()[key], atol=1e-6)
    assert size(sparse) < 0.97 * size(plain)


@pytest.mark.parametrize("wrong", [{"gamma": -1.0}, {"free_epochs": -1}])
def test_options_out_of_range_are_refused(wrong, recipe):
    with pytest.raises(ValueError, match="at least 0"):
        L1Sparse(**{"gamma": 0.1, "free_epochs": 0} | wrong, **recipe())
