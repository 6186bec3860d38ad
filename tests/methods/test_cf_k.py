"""CF-k moves the last k layers and nothing else."""

import copy

import pytest
import torch

from unlearn.core.types import Batch
from unlearn.methods.cf_k import CFk
from unlearn.methods.finetune import Finetune

pytestmark = pytest.mark.numeric

LAST = {
    "ResNet9": {1: ("fc",), 2: ("conv4", "fc"), 4: ("res2", "conv4", "fc")},
    "ViT": {1: ("fc",), 2: ("fc", "norm", "blocks.1.mlp.2"), 4: ("fc", "norm", "blocks.1.mlp",
            "blocks.1.norm2", "blocks.1.attention.out")},
}  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 4])
def test_frozen_layers_and_their_statistics_stay_bit_for_bit(k, known, task, recipe, fit):
    before = copy.deepcopy(known.state_dict())
    tuned = CFk(k=k, **recipe()).unlearn(known, task.request(), fit)
    for name, value in tuned.state_dict().items():
        moves = name.startswith(LAST[type(tuned).__name__][k])
        assert torch.equal(value, before[name]) != moves, name
    assert all(p.requires_grad for p in tuned.parameters())
    assert not any(m.training for m in tuned.modules())


def test_a_frozen_layer_normalises_with_its_running_statistics(resnet, task, recipe, fit):
    seen = []

    class Watched(CFk):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            model = pl_module.model
            seen.append([m.training for m in (model.conv3[1], model.conv4[1], model.fc)])

    Watched(k=2, **recipe()).unlearn(resnet, task.request(), fit)
    assert seen == [[False, True, True]] * 12


def test_minus_one_is_plain_fine_tuning(resnet, task, recipe, fit):
    twin = copy.deepcopy(resnet)
    all_layers = CFk(k=-1, **recipe()).unlearn(resnet, task.request(), fit).state_dict()
    plain = Finetune(**recipe()).unlearn(twin, task.request(), fit).state_dict()
    assert all(torch.equal(all_layers[k], plain[k]) for k in plain)


def test_loss_is_that_of_the_retain_batch(recipe):
    retain = Batch(torch.ones(2, 1, 4, 4), torch.tensor([0, 1]), torch.tensor([4, 5]))
    method = CFk(k=1, **recipe())
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 20.0, 0.0]])
    assert method.uses(0) == ("retain",)
    assert method.loss(lambda image: logits, {"retain": retain}).item() == pytest.approx(
        0.5493, abs=1e-4
    )


def test_k_out_of_range_is_refused_by_name(resnet, task, recipe):
    for k in (0, -2):
        with pytest.raises(ValueError, match=rf"method.k must be -1 .* got {k}"):
            CFk(k=k, **recipe())
    with pytest.raises(ValueError, match=r"method.k must be -1 .* or in 1..9, .* ResNet9, got 10"):
        CFk(k=10, **recipe()).prepare(resnet, task.request())
