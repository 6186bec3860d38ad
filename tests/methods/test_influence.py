"""Influence unlearning: its step by hand and in closed form, and that it forgets."""

import copy

import pytest
import torch
from torch.nn import functional as F

from unlearn.methods.influence import (
    Influence,
    compute_inverse_fisher_product,
    compute_leave_out_gradient,
)
from unlearn.models.inference import compute_logits

pytestmark = pytest.mark.numeric

OPTIONS = {"alpha": 1.0, "num_samples": 50, "batch_size": 64, "seed": 0}


def parameters_to_vector(parameters):
    return torch.cat([p.detach().flatten() for p in parameters])


def test_influence_by_hand():
    found = compute_leave_out_gradient(torch.tensor([6.0, 0.0]), torch.tensor([3.0, 9.0]), (2, 3))
    # (1/5) * 6 - 2 / (5 * 3) * 3
    assert found.tolist() == pytest.approx([1.2 - 0.4, -1.2])


def test_the_recursion_by_hand():
    slopes = [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0])]
    # own = (1, 0), scale = 1, <product, slope> = 3 + 8 = 11: minus 11 / (10 + 1) along own
    found = compute_inverse_fisher_product(torch.tensor([3.0, 4.0]), slopes, 10)
    assert found.tolist() == pytest.approx([2.0, 4.0])
    assert compute_inverse_fisher_product(torch.tensor([3.0, 4.0]), slopes[:1], 10).tolist() == [
        3.0,
        4.0,
    ]


def test_the_recursion_as_a_loop_over_its_definition():
    g = torch.Generator().manual_seed(0)
    slopes, start = torch.randn(7, 5, generator=g), torch.randn(5, generator=g)
    k, o = start.tolist(), slopes[0].tolist()
    for slope in slopes[1:].tolist():
        t = sum(a * b for a, b in zip(o, slope, strict=True))
        along = sum(a * b for a, b in zip(k, slope, strict=True)) / (20 + t)
        k = [a - along * b for a, b in zip(k, o, strict=True)]
        o = [b - t / (20 + t) * b for b in o]
    assert compute_inverse_fisher_product(start, slopes, 20).tolist() == pytest.approx(k, rel=1e-4)


def test_a_step_of_no_length_changes_no_bit(known, task):
    before = copy.deepcopy(known.state_dict())
    after = Influence(**OPTIONS | {"alpha": 0.0}).unlearn(known, task.request(), None)
    assert all(torch.equal(before[k], v) for k, v in after.state_dict().items())


def losses(model, data):
    return F.cross_entropy(compute_logits(model, data), data.label).item()


def test_the_step_raises_the_loss_of_the_forget_set_more_than_that_of_the_rest(known, task):
    request = task.request()
    start = parameters_to_vector(known.parameters()).clone()
    before = [losses(known, part) for part in (request.forget, request.retain)]
    method = Influence(**OPTIONS | {"alpha": 0.1})  # short: the loss is close to its tangent
    after = method.unlearn(known, request, None)
    forget, retain = (losses(after, p) for p in (request.forget, request.retain))
    assert forget > before[0]
    assert forget - before[0] > 2 * abs(retain - before[1])
    step = (parameters_to_vector(after.parameters()) - start).norm().item()
    assert method.notes["step_norm"] == pytest.approx(step, rel=1e-2)


def test_the_memory_layout_of_the_weights_does_not_matter(resnet, task):
    plain = copy.deepcopy(resnet).to(memory_format=torch.contiguous_format)
    other = copy.deepcopy(resnet).to(memory_format=torch.channels_last)
    one, two = (Influence(**OPTIONS).unlearn(m, task.request(), None) for m in (plain, other))
    for a, b, before in zip(one.parameters(), two.parameters(), resnet.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
        assert not torch.equal(a, before)


def test_the_order_of_the_samples_is_seeded(resnet, task):
    def weights(seed):
        method = Influence(**OPTIONS | {"seed": seed, "alpha": 100.0})
        healed = method.unlearn(copy.deepcopy(resnet), task.request(), None)
        return parameters_to_vector(healed.parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize(("option", "value"), [("alpha", -1.0), ("num_samples", 0)])
def test_options_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=rf"method.{option} must be at least .*, got {value}"):
        Influence(**OPTIONS | {option: value})
