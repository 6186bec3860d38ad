"""ELR, co-teaching and DivideMix: objectives that tolerate wrong labels, from scratch."""

import copy

import pytest
import torch
from torch.nn import functional as F

from unlearn.core.types import Batch
from unlearn.methods.co_teaching import (
    CoTeaching,
    CoTeachingObjective,
    compute_drop_rate,
    select_small_losses,
)
from unlearn.methods.divide_mix import (
    DivideMix,
    DivideMixObjective,
    fit_clean_probability,
    guess_targets,
    sharpen,
)
from unlearn.methods.elr import ELR, ELRObjective
from unlearn.methods.retrain import Retrain
from unlearn.models.resnet9 import ResNet9
from unlearn.models.surgery import reinitialize_network
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant

pytestmark = pytest.mark.numeric

MIX = {
    "warmup_epochs": 1, "unlabelled_weight": 5.0, "ramp_epochs": 2, "temperature": 0.5, "mixup": 4.0,
}  # fmt: skip
OBJECTIVES = {
    ELR: lambda: ELRObjective(momentum=0.7, weight=3.0),
    CoTeaching: lambda: CoTeachingObjective(noise_rate=0.2, ramp_epochs=2),
    DivideMix: lambda: DivideMixObjective(**MIX),
}


def sgd(lr=0.05):
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9)


def test_elr_keeps_a_running_mean_of_predictions_and_rewards_agreement(network, task):
    objective = ELRObjective(momentum=0.7, weight=3.0)
    objective.start(network, task.train, seed=0)
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
    batch = Batch(torch.zeros(2, 1, 1, 1), torch.tensor([1, 1]), torch.tensor([7, 3]))
    loss = objective.compute_loss(lambda image: logits, batch)
    p = logits.detach().softmax(1)
    torch.testing.assert_close(objective.targets[[7, 3]], 0.3 * p)  # before the loss
    assert objective.targets.abs().sum() == pytest.approx(0.6)  # all others are still 0
    by_hand = F.cross_entropy(logits, batch.label) + 3 * torch.log(1 - (0.3 * p * p).sum(1)).mean()
    torch.testing.assert_close(loss, by_hand)
    (slope,) = torch.autograd.grad(loss - F.cross_entropy(logits, batch.label), logits)
    moved = (logits.detach() - 0.1 * slope).softmax(1)
    agreement = (objective.targets[[7, 3]] * moved).sum(1)
    assert (agreement > (objective.targets[[7, 3]] * p).sum(1)).all()  # a step raises it
    objective.compute_loss(lambda image: logits, batch)
    torch.testing.assert_close(objective.targets[[7, 3]], 0.7 * 0.3 * p + 0.3 * p)


def test_co_teaching_drops_a_growing_share():
    rates = [compute_drop_rate(epoch, 0.2, 10) for epoch in (0, 5, 10, 30)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.2])
    loss = torch.tensor([0.5, 3.0, 0.1, 2.0])
    assert select_small_losses(loss, 0.25).tolist() == [2, 0, 3]
    assert len(select_small_losses(torch.rand(128), 0.2)) == 102
    assert len(select_small_losses(torch.rand(1), 0.9)) == 1


def test_each_network_trains_on_what_the_other_one_selects(network, task):
    objective = CoTeachingObjective(noise_rate=0.5, ramp_epochs=1)
    objective.start(network, task.train, seed=0)
    objective.start_epoch(network, 1, 2)
    label = torch.zeros(4, dtype=torch.long)
    own = torch.tensor([[3.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 3.0]], requires_grad=True)
    other = own.detach().flip(0).requires_grad_(True)
    objective.peer = torch.nn.Identity()
    objective.peer.forward = lambda image: other  # type: ignore[method-assign]
    batch = Batch(torch.zeros(4, 1, 1, 1), label, torch.arange(4))
    objective.compute_loss(lambda image: own, batch).backward()
    assert own.grad is not None and other.grad is not None
    assert own.grad.abs().sum(1).nonzero().flatten().tolist() == [2, 3]  # small for the other
    assert other.grad.abs().sum(1).nonzero().flatten().tolist() == [0, 1]
    torch.testing.assert_close(own.grad[2, 0], (own.softmax(1)[2, 0] - 1) / 2)  # a mean of two
    assert objective.describe() == {"agreement": 0.0}


def test_the_mixture_separates_small_from_large_losses():
    generator = torch.Generator().manual_seed(0)
    low = 0.05 * torch.rand(80, generator=generator)
    high = 2 + 0.3 * torch.rand(20, generator=generator)
    clean = fit_clean_probability(torch.cat([low, high]), 0)
    assert (clean[:80] > 0.9).all() and (clean[80:] < 0.1).all()
    assert torch.equal(fit_clean_probability(torch.ones(5), 0), torch.ones(5))


def test_targets_are_distributions_near_the_label_only_if_it_is_trusted():
    onehot = F.one_hot(torch.tensor([0, 0]), 3).float()
    guess = torch.tensor([[0.2, 0.7, 0.1]] * 2)
    target = guess_targets(onehot, torch.tensor([0.9, 0.1]), guess, guess, 0.5)
    torch.testing.assert_close(target.sum(1), torch.ones(2))
    torch.testing.assert_close(target[1], sharpen(guess, 0.5)[1])
    refined = 0.9 * onehot[:1] + 0.1 * guess[:1]
    torch.testing.assert_close(target[:1], refined.square() / refined.square().sum())
    assert target[1, 1] > guess[1, 1]  # sharper


def test_each_network_uses_the_split_of_the_other(network, task):
    objective = DivideMixObjective(**MIX)
    objective.start(network, task.train, seed=0)
    assert objective.warming and bool((objective.clean == 1).all())
    objective.start_epoch(network.eval(), 1, 3)
    losses = [
        F.cross_entropy(net.eval()(task.train.view(task.train.image, task.train.index)),
                        task.train.label, reduction="none").detach()
        for net in (network, objective.peer)
    ]  # fmt: skip
    torch.testing.assert_close(
        objective.clean[0], fit_clean_probability(losses[1], 0), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        objective.clean[1], fit_clean_probability(losses[0], 0), atol=1e-3, rtol=0
    )


def test_an_empty_side_of_the_split_is_another_epoch_of_warm_up(network, task):
    objective = DivideMixObjective(**MIX)
    objective.start(network, task.train, seed=0)
    with torch.no_grad():
        for weight in (*network.parameters(), *objective.peer.parameters()):
            weight.zero_()  # all losses are equal
    objective.start_epoch(network, 1, 3)
    assert objective.warming


def test_the_second_augmentation_is_of_the_same_images(network, task):
    objective = DivideMixObjective(**MIX)
    objective.start(network, task.request().retain, seed=0)
    objective.augment = lambda image, generator: 255 - image
    batch = next(task.request().retain.rows(torch.tensor([3, 50, 9]).sort().values).batches())
    again = objective.augment_again(batch)
    torch.testing.assert_close(again, -batch.image, atol=1e-5, rtol=0)  # normalised around 0.5


@pytest.mark.parametrize("kind", list(OBJECTIVES))
def test_training_starts_anew_and_never_sees_the_forget_set(kind, resnet, task, fit):
    before = copy.deepcopy(resnet.state_dict())
    method = kind(
        objective=OBJECTIVES[kind](), seed=4, epochs=4, batch_size=32, optimizer=sgd(),
        schedule=Constant(),
    )  # fmt: skip
    assert method.uses(0) == ("retain",) and method.role == "unlearning"
    fresh = reinitialize_network(resnet, 4).state_dict()
    prepared = method.prepare(copy.deepcopy(resnet), task.request()).state_dict()
    assert all(torch.equal(prepared[k], fresh[k]) for k in fresh)
    healed = method.unlearn(resnet, task.request(), fit)
    assert not torch.equal(healed.state_dict()["fc.weight"], before["fc.weight"])
    assert fit.images_seen == 4 * len(task.request().retain)
    if kind is not ELR:
        parameters = {
            id(p) for g in method.build_optimizers(healed)[0].param_groups for p in g["params"]
        }
        assert {id(p) for p in method.objective.peer.parameters()} <= parameters
        assert method.objective.describe().keys() <= method.notes.keys()


@pytest.mark.parametrize("kind", list(OBJECTIVES))
def test_pretraining_with_an_objective_of_its_own(kind, task, engine):
    def make(objective):
        return Pretraining(
            epochs=3, batch_size=32, optimizer=sgd(), schedule=Constant(), capacity=1.0, density=0.0,
            objective=objective,
        )  # fmt: skip

    def train(objective):
        recipe = make(objective)
        net = recipe.build_initial_network(
            lambda **s: ResNet9(**s, width=2), task.train, seed=0, mask_seed=0
        )
        pretrain(net, task.train, recipe, engine, augment=None, seed=0)
        return net.state_dict()

    objective = OBJECTIVES[kind]()
    one, two, plain = train(objective), train(objective), train(None)
    assert all(torch.equal(one[k], two[k]) for k in one)  # each training has a state of its own
    assert set(one) == set(plain) and not torch.equal(one["fc.weight"], plain["fc.weight"])
    with pytest.raises(ValueError, match=r"pretraining\.objective needs pretraining\.capacity=1"):
        Pretraining(
            epochs=3, batch_size=32, optimizer=sgd(), schedule=Constant(), capacity=0.5, density=0.0,
            objective=objective,
        )  # fmt: skip


def test_the_reference_is_retrained_as_the_original_was_trained(task, network, fit):
    plan = {"epochs": 2, "batch_size": 32, "optimizer": sgd(), "schedule": Constant()}
    plain, robust = Retrain(seed=1, **plan), Retrain(seed=1, **plan)
    robust.use_objective(ELRObjective(momentum=0.7, weight=3.0))
    assert plain.stackable and not robust.stackable
    models = [m.unlearn(copy.deepcopy(network), task.request(), fit) for m in (plain, robust)]
    assert not torch.equal(models[0].fc.weight, models[1].fc.weight)
