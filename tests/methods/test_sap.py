"""SAP: projections of weights onto the directions of samples that are believed clean."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearn.methods.components.input_directions import (
    collect_input_grams,
    compute_projection,
    project_weights,
    unfold_inputs,
)
from unlearn.methods.sap import SAP
from unlearn.models.inference import compute_logits

pytestmark = pytest.mark.numeric

OPTIONS = {
    "source": "retain", "alphas": [1e2, 1e4], "samples": 60, "columns": 5000, "batch_size": 64,
    "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize("groups", [1, 2])
def test_unfolded_inputs_times_the_weight_are_the_convolution(groups):
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups, bias=False)
    image = torch.randn(2, 4, 7, 7)
    rows = unfold_inputs(layer, image)
    assert rows is not None
    weight = layer.weight.reshape(groups, 6 // groups, -1)
    out = torch.einsum("bpgd,god->bgop", rows, weight).reshape(2, 6, 4, 4)
    torch.testing.assert_close(out, layer(image), rtol=1e-4, atol=1e-5)


def test_weak_directions_are_dampened_by_more_than_half():
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.double))[0]
    energy = torch.tensor([0.9, 0.09, 0.0099, 0.0001], dtype=torch.double)
    gram = (basis * energy) @ basis.T
    alpha = 50.0
    projection = compute_projection(gram[None], alpha)[0]
    kept = (basis.T @ projection @ basis).diagonal()
    torch.testing.assert_close(kept, alpha * energy / ((alpha - 1) * energy + 1))
    assert torch.equal(kept < 0.5, energy < 1 / (alpha + 1))
    torch.testing.assert_close(
        compute_projection(gram[None], 1e12)[0], torch.eye(4, dtype=torch.double), atol=1e-6, rtol=0
    )


def test_a_huge_scale_leaves_the_network_and_a_small_one_does_not(resnet, task):
    data = task.train.rows(torch.arange(100))
    grams = collect_input_grams(resnet, data, batch_size=50, columns=10**6, seed=0)
    convolutions = [n for n, m in resnet.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sorted(grams) == sorted(convolutions)
    before = copy.deepcopy(resnet.state_dict())
    wanted = compute_logits(resnet, data)
    project_weights(resnet, grams, 1e15)
    torch.testing.assert_close(compute_logits(resnet, data), wanted, rtol=1e-2, atol=1e-2)
    project_weights(resnet, grams, 10.0)
    assert not torch.allclose(compute_logits(resnet, data), wanted, rtol=1e-2, atol=1e-2)
    weights = {f"{name}.weight" for name in convolutions}
    for name, value in resnet.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in weights), name


def test_an_input_outside_of_the_clean_directions_has_no_effect(task):
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    data = task.train.rows(torch.arange(20))
    grams = collect_input_grams(model, data, batch_size=20, columns=100, seed=0)
    rows = next(data.batches()).image.flatten(1)
    outside = torch.linalg.svd(rows.double())[2][-1]  # orthogonal to all of them
    assert (model[1].weight @ outside.float()).abs().max() > 1e-3
    before = F.linear(rows, model[1].weight).norm()
    project_weights(model, grams, 1e4)
    assert (model[1].weight @ outside.float()).abs().max() < 1e-5
    assert F.linear(rows, model[1].weight).norm() > 0.9 * before


def test_the_samples_are_those_of_lowest_loss_per_given_class(resnet, task):
    retain = task.request().retain
    method = SAP(**(OPTIONS | {"samples": 30}))
    fit, rest = method._select_low_losses(resnet, retain)
    loss = F.cross_entropy(compute_logits(resnet, retain), retain.label, reduction="none")
    for c in range(3):
        own = torch.isin(retain.index, fit.index[fit.label == c])
        others = (retain.label == c) & ~own
        assert int(own.sum()) == 10
        assert loss[own].max() <= loss[others].min()
    assert len(rest) == 30 and not torch.isin(rest.index, fit.index).any()
    assert not torch.isin(fit.index, task.forget_indices()).any()


def test_a_trusted_set_is_used_only_if_it_is_asked_for(resnet, known_right, task, fit):
    assert not SAP(**OPTIONS).needs_trusted
    method = SAP(**(OPTIONS | {"source": "trusted"}))
    assert method.needs_trusted
    method.unlearn(copy.deepcopy(resnet), known_right, fit)
    assert method.notes["trusted_images"] == 48 and method.notes["alpha"] in (1e2, 1e4)
    with pytest.raises(ValueError, match="a trusted set is needed"):
        method.unlearn(resnet, task.request(), fit)
