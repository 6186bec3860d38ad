"""What is frozen stays bit for bit, whatever the optimizer."""

import copy

import pytest
import torch
from torch import nn

from unlearn.methods.components.frozen_parameters import FrozenParameters
from unlearn.methods.finetune import Finetune
from unlearn.training.optimizers import NormalizedSGD

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.5),
    "normalized": lambda p: NormalizedSGD(p, lr=0.5, momentum=0.9, weight_decay=0.1),
}


class Held(Finetune):
    """Fine-tuning with a mask."""

    def __init__(self, masks, **recipe):
        super().__init__(**recipe)
        self.frozen = FrozenParameters(masks)
        self.without_gradient = set()

    def callbacks(self):
        return [self, self.frozen]

    def on_after_backward(self, trainer, pl_module):
        named = pl_module.model.named_parameters()
        self.without_gradient |= {name for name, p in named if p.grad is None}


def masks_of(model):
    generator = torch.Generator().manual_seed(0)
    masks = {k: torch.rand(p.shape, generator=generator) < 0.5 for k, p in model.named_parameters()}
    masks["fc.weight"].fill_(True)
    masks["conv1.0.weight"].fill_(False)
    del masks["conv2.0.weight"]  # without a mask: free
    return masks


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_entries_stay_and_others_move(optimizer, resnet, task, recipe, fit):
    masks, before = masks_of(resnet), copy.deepcopy(resnet)
    method = Held(masks, **(recipe() | {"optimizer": OPTIMIZERS[optimizer]}))
    after = dict(method.unlearn(resnet, task.request(), fit).named_parameters())
    for name, old in before.named_parameters():
        mask = masks.get(name, torch.ones_like(old, dtype=torch.bool))
        assert torch.equal(after[name][~mask], old[~mask]), name
        assert not mask.any() or (after[name][mask] != old[mask]).float().mean() > 0.9, name
    assert method.without_gradient == {"conv1.0.weight"}  # no work for what cannot move
    assert all(p.requires_grad for p in after.values())


def test_gradients_of_frozen_entries_do_not_count_in_a_norm(resnet, task, recipe, fit):
    masks, before = masks_of(resnet), copy.deepcopy(resnet)
    plan = recipe(epochs=1, batch_size=500) | {
        "optimizer": lambda p: NormalizedSGD(p, lr=0.5, momentum=0.0, weight_decay=0.0)
    }
    after = Held(masks, **plan).unlearn(resnet, task.request(), fit)
    pairs = zip(after.parameters(), before.parameters(), strict=True)
    step = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    assert step.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_masks_that_make_no_sense_are_refused():
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="every parameter is frozen"):
        FrozenParameters({"weight": torch.zeros(2, 2, dtype=torch.bool)})
    for name, shape in (("other", (2, 2)), ("weight", (2,))):
        frozen = FrozenParameters({name: torch.ones(shape, dtype=torch.bool)})
        with pytest.raises(ValueError, match=f"mask '{name}' .* does not match any parameter"):
            frozen.freeze_entries(layer)
