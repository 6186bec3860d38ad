"""SalUn relabels, and moves salient weights alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearn.core.types import Batch
from unlearn.methods.components.saliency import (
    compute_drifting_gradient,
    compute_summed_gradient,
    input_saliency_loss,
    select_top_fraction,
)
from unlearn.methods.random_label import RandomLabelling
from unlearn.methods.salun import SalUn
from unlearn.models.inference import compute_accuracy, compute_logits
from unlearn.training.optimizers import NormalizedSGD

pytestmark = pytest.mark.numeric

OPTIONS = {
    "form": "weight_saliency", "salient_fraction": 0.3, "salient": "largest", "drift": False,
    "alpha": 0.001, "redraw": False,
    "exclude_true": True, "mix": "union", "seed": 0,
}  # fmt: skip


def test_gradient_by_a_naive_loop_whatever_the_batches(known, task):
    forget = task.request().forget
    modes = [m.training for m in known.modules()]
    expected = {name: torch.zeros_like(p) for name, p in known.named_parameters()}
    twin = copy.deepcopy(known).eval()
    for i in range(len(forget)):
        batch = next(forget.rows(torch.tensor([i])).batches())
        twin.zero_grad()
        F.cross_entropy(twin(batch.image), batch.label).backward()
        for name, p in twin.named_parameters():
            expected[name] += p.grad
    for batch_size in (4, 100):
        for name, slope in compute_summed_gradient(known, forget, batch_size).items():
            scale = expected[name].abs().max().item()
            assert torch.allclose(slope, expected[name], rtol=1e-3, atol=1e-4 * scale + 1e-7), name
    assert modes == [m.training for m in known.modules()]
    assert all(p.grad is None for p in known.parameters())


def test_the_largest_are_chosen_over_all_tensors_together():
    values = {"a": torch.tensor([[5.0, 1.0], [0.0, 3.0]]), "b": torch.tensor([4.0, 2.0])}
    chosen = select_top_fraction(values, 0.5)
    assert chosen["a"].tolist() == [[True, False], [False, True]]
    assert chosen["b"].tolist() == [True, False]
    tied = select_top_fraction({"a": torch.zeros(6), "b": torch.zeros(4)}, 0.3)
    assert sum(int(m.sum()) for m in tied.values()) == 3  # exact where all are equal
    assert all(m.all() for m in select_top_fraction(values, 1.0).values())
    assert sum(int(m.sum()) for m in select_top_fraction(values, 0.01).values()) == 1


def test_unselected_weights_stay_bit_for_bit(known, task, recipe, fit):
    before = copy.deepcopy(known)
    method = SalUn(**OPTIONS, **recipe(lr=0.05, weight_decay=0.1))
    after = dict(method.unlearn(known, task.request(), fit).named_parameters())
    chosen = sum(int(m.sum()) for m in method.salient.values())
    assert chosen == round(0.3 * sum(p.numel() for p in after.values()))
    moved = 0
    for name, old in before.named_parameters():
        still = ~method.salient[name]
        assert torch.equal(after[name][still], old[still]), name
        moved += int((after[name] != old).sum())
    assert moved > 0.95 * chosen


def test_all_weights_salient_is_random_relabelling(resnet, task, recipe, fit):
    twin, given = copy.deepcopy(resnet), {"redraw": True, "exclude_true": False, "mix": "union"}
    whole = SalUn(**OPTIONS | given | {"salient_fraction": 1.0}, **recipe())
    plain = RandomLabelling(**given, seed=0, **recipe())
    one = whole.unlearn(resnet, task.request(), fit).state_dict()
    two = plain.unlearn(twin, task.request(), fit).state_dict()
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_the_smallest_are_the_rest(resnet, task, recipe):
    masks = []
    for end, share in (("largest", 0.3), ("smallest", 0.7)):
        method = SalUn(**OPTIONS | {"salient": end, "salient_fraction": share}, **recipe())
        method.prepare(copy.deepcopy(resnet), task.request())
        masks.append(torch.cat([m.flatten() for m in method.salient.values()]))
    assert (masks[0] ^ masks[1]).float().mean() > 0.99  # but for ties


def test_a_drifting_gradient_is_that_of_no_single_model(resnet, task):
    forget, before = task.request().forget, copy.deepcopy(resnet.state_dict())
    still = compute_drifting_gradient(
        resnet, forget, 5, lambda p, **k: torch.optim.SGD(p, lr=0.0, **k)
    )
    summed = compute_summed_gradient(resnet, forget, 100)
    for name, slope in still.items():  # means over two batches of five, where the sum is over ten
        scale = summed[name].abs().max().item()
        assert torch.allclose(5 * slope, summed[name], rtol=1e-3, atol=1e-4 * scale + 1e-7), name
    moved = compute_drifting_gradient(
        resnet, forget, 5, lambda p, **k: torch.optim.SGD(p, lr=0.1, **k)
    )
    both = [torch.cat([v.flatten() for v in s.values()]) for s in (still, moved)]
    assert both[1].norm() > both[0].norm()  # the loss rises, and its slope with it
    assert all(torch.equal(before[k], v) for k, v in resnet.state_dict().items())


def test_what_moves_is_what_the_forget_set_cares_about(resnet, task, recipe):
    method = SalUn(**OPTIONS, **recipe())
    method.prepare(resnet, task.request())
    slope = compute_summed_gradient(resnet, task.request().forget, 100)
    inside = torch.cat([slope[k][m].abs() for k, m in method.salient.items()])
    outside = torch.cat([slope[k][~m].abs() for k, m in method.salient.items()])
    assert inside.min() >= outside.max()


def test_the_forget_set_takes_its_new_labels(resnet, task, recipe, fit):
    request = task.request()
    method = SalUn(**OPTIONS, **recipe(lr=0.05, epochs=5, weight_decay=0.0))
    healed = method.unlearn(resnet, request, fit)
    assert compute_accuracy(healed, request.forget) < 0.4  # the original: 1
    assert compute_accuracy(healed, request.retain) > 0.9
    predicted = compute_logits(healed, request.forget).argmax(1)
    assert (predicted == method.new_label).float().mean() > 0.7


def test_input_saliency_by_hand_for_a_linear_network():
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    image = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    label, found = torch.tensor([0, 2, 1]), torch.tensor([True, False, True])
    x = image.flatten(1)
    p = (x @ weight.T).softmax(1)
    # d CE / d x = W^T (p - onehot), and its product with x is the logits' own
    saliency = ((p - F.one_hot(label, 3)) * (x @ weight.T)).sum(1)
    expected = -p[1, 2].log() + 0.7 * (saliency[0] + saliency[2]) / 2
    batch = Batch(image, label, torch.arange(3))
    loss = input_saliency_loss(lambda z: z.flatten(1) @ weight.T, batch, found, 0.7)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    nobody = input_saliency_loss(
        lambda z: z.flatten(1) @ weight.T, batch, torch.zeros(3, dtype=torch.bool), 0.7
    )
    assert nobody.item() == pytest.approx(-p.log()[range(3), label].mean().item(), rel=1e-4)


def test_the_form_of_input_saliency_trains_every_weight(known, task, recipe, fit):
    request, before = task.request(), copy.deepcopy(known)
    options = OPTIONS | {"form": "input_saliency", "alpha": 0.01}
    plan = recipe(lr=0.02, epochs=3, weight_decay=0.0)
    after = dict(SalUn(**options, **plan).unlearn(known, request, fit).named_parameters())
    for name, old in before.named_parameters():
        assert torch.isfinite(after[name]).all()
        assert not torch.equal(after[name], old), name


def test_steps_of_input_saliency_lower_the_penalty(resnet, task, recipe):
    """Not of the ViT: layer norm follows its patches, so that the penalty is zero but for rounding."""
    request = task.request()
    method = SalUn(**OPTIONS | {"form": "input_saliency", "alpha": 1.0}, **recipe())
    model = method.prepare(resnet, request).eval()
    optimizer = NormalizedSGD(model.parameters(), lr=0.02, momentum=0.0, weight_decay=0.0)
    (name,) = method.uses(0)
    batch = next(request.forget.batches())  # no retained sample: the loss is the penalty alone
    before, values = penalty(model, request.forget), []
    assert method.loss(model, {name: batch}).item() == pytest.approx(before, rel=1e-4)
    for _ in range(10):
        optimizer.zero_grad()
        method.loss(model, {name: batch}).backward()
        optimizer.step()
        values.append(penalty(model, request.forget))
    assert values[-1] < before - 0.02


def penalty(model: nn.Module, forget):
    twin = copy.deepcopy(model).eval()
    batch = next(forget.batches())
    found = torch.ones(len(forget), dtype=torch.bool)
    return input_saliency_loss(twin, batch, found, 1.0).item()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("form", "weights"),
        ("salient", "both"),
        ("salient_fraction", 0.0),
        ("salient_fraction", 1.5),
        ("alpha", -0.1),
    ],
)
def test_options_out_of_range_are_refused_by_name(option, value, recipe):
    with pytest.raises(ValueError, match=rf"method.{option} must be .*, got {value}"):
        SalUn(**(OPTIONS | {option: value}), **recipe())
