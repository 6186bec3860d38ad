"""Repairs that train against a perturbation: FT-SAM of the weights, I-BAU and SAU of the images."""

import copy

import pytest
import torch
from torch.nn import functional as F

from unlearn.methods.ft_sam import FtSam, compute_adaptive_ascent
from unlearn.methods.i_bau import IBAU, hypergradient_loss
from unlearn.methods.sau import SAU, compute_divergence, pixel_scale, shared_loss
from unlearn.models.surgery import batch_norms

pytestmark = pytest.mark.numeric


def test_the_ascent_of_sam_is_as_long_as_its_radius_relative_to_the_weights():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, 4, generator=generator), torch.randn(3, generator=generator)]
    weights[0][1, 2] = 0
    slopes = [torch.randn(w.shape, generator=generator) for w in weights]
    moves = compute_adaptive_ascent(weights, slopes, 2.0)
    assert moves[0][1, 2] == 0  # a weight of zero is not perturbed
    relative = [(m / w)[w != 0] for m, w in zip(moves, weights, strict=True)]
    assert torch.cat(relative).norm().item() == pytest.approx(2.0, rel=1e-5)
    norm = torch.cat([(w.abs() * g).flatten() for w, g in zip(weights, slopes, strict=True)]).norm()
    torch.testing.assert_close(moves[1], 2.0 * weights[1] ** 2 * slopes[1] / norm)


def make_sam(recipe, **more):
    return FtSam(**({"radius": 2.0, "label_smoothing": 0.1} | more), **recipe())


def test_a_step_of_sam_has_the_gradient_at_the_perturbed_weights(resnet, known_right, recipe):
    batch = {"trusted": next(known_right.trusted.batches())}
    method = make_sam(recipe, label_smoothing=0.0)
    model = method.prepare(resnet, known_right).eval()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    loss = method.loss(model, batch)
    loss.backward()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())  # nothing moved
    image, label = batch["trusted"].image, batch["trusted"].label
    plain = F.cross_entropy(model(image), label)
    assert loss > plain  # the point nearby is worse
    slopes = torch.autograd.grad(plain, list(model.parameters()))
    moves = compute_adaptive_ascent(list(model.parameters()), slopes, 2.0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight, move in zip(other.parameters(), moves, strict=True):
            weight.add_(move)
    other.zero_grad()
    F.cross_entropy(other(image), label).backward()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_only_the_first_pass_of_sam_updates_batch_norm(resnet, known_right, recipe):
    batch = {"trusted": next(known_right.trusted.batches())}
    once = copy.deepcopy(resnet).train()
    once(batch["trusted"].image)
    method = make_sam(recipe)
    model = method.prepare(resnet, known_right).train()
    method.loss(model, batch)
    for own, wanted in zip(batch_norms(model), batch_norms(once), strict=True):
        torch.testing.assert_close(own.running_mean, wanted.running_mean, rtol=0, atol=1e-6)
        assert own.num_batches_tracked == wanted.num_batches_tracked


def test_label_smoothing_leaves_its_share_to_the_other_classes(resnet, known_right, recipe):
    method = make_sam(recipe)
    method.prepare(resnet, known_right)
    logits, label = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    target = torch.full((4, 3), 0.1 / 2)
    target[torch.arange(4), label] = 0.9
    by_hand = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(method._criterion(logits, label), by_hand)


def quadratic(theta, delta, iterations, rate):
    """Return d/dtheta of outer(delta*(theta)) for the inner problem (delta - theta)^2 / 2."""
    step = (
        delta
        - rate
        * torch.autograd.grad((delta - theta).square().sum() / 2, delta, create_graph=True)[0]
    )
    outer = 3 * delta.sum()
    (slope,) = torch.autograd.grad(hypergradient_loss(outer, step, delta, iterations), theta)
    return slope.item()


def test_the_hypergradient_converges_to_the_implicit_one():
    theta = torch.tensor([0.7], requires_grad=True)
    delta = torch.tensor([0.7], requires_grad=True)  # the inner optimum
    assert quadratic(theta, delta, 400, 0.1) == pytest.approx(3.0, abs=1e-4)
    assert quadratic(theta, delta, 5, 0.1) == pytest.approx(3 * (1 - 0.9**5), abs=1e-4)


BAU = {
    "inner_lr": 10.0, "penalty": 0.001, "max_norm": 2.0, "perturbed_fraction": 1.0,
    "fixed_point_lr": 0.1, "iterations": 5, "seed": 0,
}  # fmt: skip


def test_i_bau_trains_against_a_perturbation_that_changes_predictions(resnet, known_right, recipe):
    method = IBAU(**BAU, **recipe())
    model = method.prepare(resnet, known_right).train()
    method.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    assert not any(module.training for module in model.modules())
    assert 0 < method.delta.norm() <= 2.0 + 1e-4
    trusted = next(known_right.trusted.batches())
    nothing = torch.zeros_like(method.delta)
    assert method.inner_loss(trusted.image, method.delta) < method.inner_loss(
        trusted.image, nothing
    )
    loss = method.loss(model, {"trusted": trusted})
    by_hand = F.cross_entropy(model(trusted.image + method.delta), trusted.label)
    torch.testing.assert_close(loss, by_hand, rtol=1e-4, atol=1e-5)
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    direct = torch.autograd.grad(by_hand, list(model.parameters()))
    pairs = zip(slopes, direct, strict=True)
    assert any(not torch.allclose(a, b, rtol=1e-2, atol=1e-4) for a, b in pairs)  # the response


def test_i_bau_perturbs_a_share_of_the_batch_and_at_least_one(recipe):
    method = IBAU(**(BAU | {"perturbed_fraction": 0.01}), **recipe())
    method.generator = torch.Generator().manual_seed(0)
    assert [int(method._draw_rows(n).sum()) for n in (256, 20)] == [2, 1]


ADVERSARY = {"radius": 0.2, "inner_steps": 5, "adversarial_weight": 0.01, "shared_weight": 1.0}


def test_sau_stays_in_its_box_and_leaves_the_reference_alone(resnet, known_right, recipe, fit):
    before = copy.deepcopy(resnet.state_dict())
    method = SAU(**ADVERSARY, **recipe(lr=0.001, epochs=2))
    healed = method.unlearn(resnet, known_right, fit)
    reference = method.reference.state_dict()
    assert all(torch.equal(reference[k], before[k]) for k in before)
    assert not torch.equal(healed.fc.weight, before["fc.weight"])
    running = [k for k in before if "running" in k]
    assert all(torch.equal(healed.state_dict()[k], before[k]) for k in running)  # eval mode
    trusted = next(known_right.trusted.batches())
    delta = method.perturb(trusted.image, trusted.label)
    assert 0 < delta.abs().max() <= 0.2
    assert torch.allclose(method.scale, torch.tensor(4.0))  # input = (pixel - 0.5) / 0.25
    assert pixel_scale(known_right.trusted).shape == (1, 1, 12, 12)


def test_the_loss_on_shared_examples_by_hand():
    logits, wrong = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 3.0]]), torch.tensor([1, 2])
    active = torch.tensor([True, False])
    by_hand = -torch.log(1 - logits.softmax(1)[0, 1]) / 2
    torch.testing.assert_close(shared_loss(logits, wrong, active), by_hand)
    p, q = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(compute_divergence(p, q), compute_divergence(q, p))
    assert compute_divergence(p, p).abs().max() < 1e-6
    m = (p.softmax(1) + q.softmax(1)) / 2
    half = [(x.softmax(1) * (x.log_softmax(1) - m.log())).sum(1) / 2 for x in (p, q)]
    torch.testing.assert_close(compute_divergence(p, q), half[0] + half[1])
