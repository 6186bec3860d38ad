"""ANP and RNP: masks of batch-norm channels, and the pruned original."""

import copy

import pytest
import torch
from torch import nn

from unlearn.core.types import Batch
from unlearn.methods.anp import ANP
from unlearn.methods.components.norm_scales import (
    ScaleMasks,
    choose_threshold,
    prune_scales,
)
from unlearn.methods.rnp import RNP
from unlearn.models.inference import compute_accuracy

pytestmark = pytest.mark.numeric

MASKS = {"threshold": 0.2, "tolerance": 0.02, "seed": 0}


def sgd(lr):
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9)


def make_anp(recipe, **more):
    options = {"iterations": 30, "epsilon": 0.4, "alpha": 0.2, "project": True} | MASKS | more
    plan = {k: v for k, v in recipe().items() if k != "epochs"} | {"optimizer": sgd(0.2)}
    return ANP(**options, **plan)


def test_whole_masks_change_nothing_and_a_pruned_channel_is_its_shift(resnet, known_right):
    image = next(known_right.trusted.batches()).image
    model, masks = resnet.eval(), ScaleMasks(resnet)
    torch.testing.assert_close(masks.compute_logits(model, image), model(image))
    name = masks.names[0]
    layer = model.get_submodule(name)
    with torch.no_grad():
        masks.masks[0][0] = 0
        layer.bias[0] = 0.3
    wanted = masks.compute_logits(model, image)
    assert prune_scales(model, masks.by_layer(), 0.5) == 1
    seen = []
    layer.register_forward_hook(lambda *a: seen.append(a[2]))
    torch.testing.assert_close(model(image), wanted)
    assert (seen[0][:, 0] == layer.bias[0]).all() and not (seen[0][:, 1] == layer.bias[1]).all()


class Planted(nn.Module):
    """Channels 0 and 1 tell the classes; 2 is silent, and votes for class 0 once it is amplified."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.norm.bias.copy_(torch.tensor([0.0, 0.0, -1.05]))
            self.fc.weight.copy_(torch.tensor([[4.0, 0.0, 60.0], [0.0, 4.0, -60.0]]))

    def forward(self, image):
        return self.fc(self.norm(image).relu().mean((2, 3)))


def test_the_channel_that_harms_under_perturbation_gets_the_smallest_mask(recipe):
    label = torch.tensor([0, 1] * 16)
    image = torch.zeros(32, 3, 2, 2)
    image[:, 0] += label[:, None, None].eq(0)
    image[:, 1] += label[:, None, None].eq(1)
    image[:, 2] += label[:, None, None].eq(1)
    model, method = Planted().train(), make_anp(recipe)
    method.model, method.masks = model, ScaleMasks(model)
    method.generator = torch.Generator().manual_seed(0)
    (optimizer,) = method.build_optimizers(model)
    for _ in range(30):
        optimizer.zero_grad()
        method.loss(model, {"trusted": Batch(image, label, torch.arange(32))}).backward()
        optimizer.step()
        method.masks.clip()
    mask = method.masks.masks[0].detach()
    assert mask.argmin() == 2
    assert mask[2] < 0.2 < mask[:2].min()


@pytest.mark.parametrize("project", [True, False])
def test_perturbations_raise_the_loss_within_their_bound(project, resnet, known_right, recipe):
    method = make_anp(recipe, project=project)
    model = method.prepare(resnet, known_right).eval()
    trusted = next(known_right.trusted.batches())
    scale, shift = method.perturb(trusted.image, trusted.label)
    most = torch.cat([part.abs() for part in (*scale, *shift)]).max()
    assert (most <= 0.4 + 1e-6) == project
    assert most <= 0.8 + 1e-6
    plain, moved = (
        nn.functional.cross_entropy(
            method.masks.compute_logits(model, trusted.image, *noise), trusted.label
        )
        for noise in ((), (scale, shift))
    )
    assert moved > plain


def only_scales_changed(healed, before, method):
    state, count = healed.state_dict(), 0
    scales = {f"{name}.weight" for name in method.masks.names}
    for name, value in before.items():
        if name not in scales:
            assert torch.equal(state[name], value), name
            continue
        gone = state[name] == 0
        assert torch.equal(state[name][~gone], value[~gone])
        count += int(gone.sum())
    return count


def test_anp_prunes_the_original_and_changes_nothing_else(resnet, known_right, recipe, fit):
    before = copy.deepcopy(resnet.state_dict())
    method = make_anp(recipe, threshold=0.9, iterations=31)
    healed = method.unlearn(resnet, known_right, fit)
    assert only_scales_changed(healed, before, method) == method.notes["pruned_channels"] > 0
    assert method.steps == 31  # of two batches a pass: the last one is cut short
    assert fit.images_seen == 15 * len(method.fit_set) + 32
    assert all(0 <= m.min() and m.max() <= 1 for m in method.masks.masks)


def test_rnp_unlearns_recovers_and_prunes_the_original(resnet, known_right, recipe, fit):
    before = copy.deepcopy(resnet.state_dict())
    method = RNP(
        gamma=0.2, recover_epochs=4, recover_weight=0.2, recover_optimizer=sgd(0.2),
        **(MASKS | {"threshold": 0.9}), **recipe(lr=0.05, epochs=20, weight_decay=0.0),
    )  # fmt: skip
    healed = method.unlearn(resnet, known_right, fit)
    assert method.notes["unlearned_accuracy"] <= 0.2
    assert 1 <= method.notes["unlearning_epochs"] < 20
    assert method.recovered == 4
    masks = torch.cat([m.detach() for m in method.masks.masks])
    assert 0 <= masks.min() < masks.max() <= 1
    assert only_scales_changed(healed, before, method) == method.notes["pruned_channels"] > 0


def test_the_threshold_is_the_largest_that_the_validation_images_allow(resnet, known_right):
    validation = known_right.split_trusted()[1]
    masks = {n: torch.rand_like(m) for n, m in ScaleMasks(resnet).by_layer().items()}
    before = copy.deepcopy(resnet.state_dict())
    found = choose_threshold(resnet, masks, validation, 0.02, compute_accuracy)
    assert all(torch.equal(v, before[k]) for k, v in resnet.state_dict().items())
    least = 0.98 * compute_accuracy(resnet, validation)
    for threshold, good in ((found, True), (round(found + 0.05, 2), False)):
        other = copy.deepcopy(resnet)
        prune_scales(other, masks, threshold)
        assert (compute_accuracy(other, validation) >= least) == good
