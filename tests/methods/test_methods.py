"""Losses by hand, and what each method characteristically does."""

import copy

import pytest
import torch
from torch.nn import functional as F

from unlearn.core.types import Batch
from unlearn.methods.components.checkpoint_selection import BestCheckpoint
from unlearn.methods.components.losses import npo_losses, scaled_log_sigmoid, share_weighted_mean
from unlearn.methods.components.samples import select_evenly_spaced
from unlearn.methods.finetune import Finetune
from unlearn.methods.gradient_ascent import GradientAscent
from unlearn.methods.npo import NPO
from unlearn.methods.original import Original
from unlearn.methods.rem import REM
from unlearn.methods.rem_objective import redirect_losses, removal_losses
from unlearn.methods.rem_options import ORACLE_RECORD
from unlearn.methods.retrain import Retrain
from unlearn.models.expansion.expanded import Expanded, remove_extra_channels
from unlearn.models.inference import compute_accuracy
from unlearn.models.surgery import batch_norms
from unlearn.training.optimizers import NormalizedSGD
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant, WarmupLinear
from unlearn.training.unlearning import LightningFit

pytestmark = pytest.mark.numeric

LINEAR = WarmupLinear(warmup_fraction=0.2, stretch=0.8)


def sgd(lr):
    return lambda params: torch.optim.SGD(params, lr=lr, momentum=0.9)


REMOVAL = {
    "epochs": 60, "batch_size": 64, "optimizer": lambda p: NormalizedSGD(p, lr=0.02, momentum=0.0, weight_decay=0.0),
    "schedule": Constant(), "gamma": 0.35, "select": "last", "select_samples": None,
    "batch_norm": "eval",
}  # fmt: skip
OPTIONS = {
    "epochs": 3, "batch_size": 32, "optimizer": sgd(0.05), "schedule": LINEAR,
    "removal_optimizer": lambda p: NormalizedSGD(p, lr=0.02, momentum=0.0, weight_decay=0.0), "seed": 0, "gamma": 0.2,
    "beta": 1.0, "density": 0.5, "ratio": 1.0, "shared_mask": True, "removal_term": True,
    "removal_batch_size": 8, "max_removal_epochs": 30, "reference": "masked",
    "redirect_loss": "ce", "removal_batch_norm": "eval", "batch_norm": "recalibrate",
    "select": "last", "select_samples": None, "expand": True, "ideal": False,
    "redirect_on": "all", "removal_loss": "npo", "removal_weight": "share",
    "select_original": True,
}  # fmt: skip


@pytest.fixture
def trained(resnet):
    """A network that has memorised the wrong labels."""
    return resnet


def fit(engine, **more):
    return LightningFit(engine, augment=None, seed=0, **more)


def test_npo_by_hand_and_its_limit_of_small_beta():
    loss, reference = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 3.0])
    by_hand = -(2 / 2.0) * (F.logsigmoid(torch.tensor(1.0)) + F.logsigmoid(torch.tensor(0.0))) / 2
    assert torch.allclose(npo_losses(loss, reference, 2.0).mean(), by_hand)
    loss = torch.tensor([1.0, 9.0], requires_grad=True)
    npo_losses(loss, reference, 1e-6).mean().backward()
    assert torch.allclose(loss.grad, torch.tensor([-0.5, -0.5]), atol=1e-4)  # plain ascent
    loss = torch.tensor([30.0, 30.0], requires_grad=True)
    npo_losses(loss, reference, 1.0).mean().backward()
    assert loss.grad.abs().max() < 1e-6  # forgotten samples are left alone


@pytest.mark.parametrize("form", ["logsig", "ce", "dpo"])
def test_redirection_lowers_the_loss_in_every_form(form):
    loss = torch.tensor([0.5, 2.0, 9.0], requires_grad=True)
    redirect_losses(loss, torch.ones(3), 1.0, form).sum().backward()
    assert (loss.grad > 0).all()
    if form != "ce":
        descending = loss.grad.diff() < 0
        assert descending.all() == (form == "logsig")
    assert scaled_log_sigmoid(torch.tensor(-60.0), 1.0).isfinite()


@pytest.mark.parametrize("form", ["npo", "ga"])
def test_removal_raises_the_loss_in_every_form(form):
    loss = torch.tensor([0.5, 2.0, 9.0], requires_grad=True)
    removal_losses(loss, torch.ones(3), 1.0, form).sum().backward()
    assert (loss.grad < 0).all()
    assert (loss.grad.diff() > 0).all() == (form == "npo")  # it fades for what is forgotten


def test_a_masked_mean_weighs_by_the_share():
    keep = torch.tensor([True, False, False, True])
    assert share_weighted_mean(torch.tensor([1.0, 5.0, 7.0, 3.0]), keep) == 1.0


def test_original_changes_nothing(trained, task, engine):
    before = copy.deepcopy(trained.state_dict())
    after = Original().unlearn(trained, task.request(), fit(engine)).state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_finetune_uses_the_retain_set_alone():
    calls = []

    def forward(image, index=None):
        calls.append(image)
        return torch.zeros(len(image), 3, requires_grad=True)

    retain = Batch(torch.ones(2, 1, 4, 4), torch.tensor([0, 1]), torch.tensor([4, 5]))
    method = Finetune(epochs=1, batch_size=4, optimizer=sgd(0.1), schedule=LINEAR)
    assert method.uses(0) == ("retain",)
    assert method.loss(forward, {"retain": retain}).item() == pytest.approx(1.0986, abs=1e-4)
    assert len(calls) == 1


def test_retrain_starts_from_fresh_weights_and_never_sees_the_forget_set(trained, task, engine):
    method = Retrain(seed=4, epochs=1, batch_size=32, optimizer=sgd(0.05), schedule=LINEAR)
    fresh = method.prepare(trained, task.request())
    assert not torch.equal(fresh.fc.weight, trained.fc.weight)
    assert method.uses(0) == ("retain",)


@pytest.mark.parametrize("kind", ["ascent", "npo"])
def test_removal_forgets_and_stops_at_gamma(kind, trained, task, engine):
    method = GradientAscent(**REMOVAL) if kind == "ascent" else NPO(beta=1.0, **REMOVAL)
    healed = method.unlearn(trained, task.request(), fit(engine))
    assert compute_accuracy(healed, task.request().forget) <= 0.35
    assert method.notes["converged"]
    again = GradientAscent(**REMOVAL)
    counter = fit(engine)
    again.unlearn(healed, task.request(), counter)
    assert again.notes["already_forgotten"]
    assert counter.images_seen == 0


def test_removal_batch_norm_in_eval_mode_keeps_statistics(trained, task, engine):
    before = [layer.running_mean.clone() for layer in batch_norms(trained)]
    healed = GradientAscent(**REMOVAL).unlearn(trained, task.request(), fit(engine))
    after = [layer.running_mean for layer in batch_norms(healed)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_proxy_prefers_what_forgets_and_keeps(trained, task):
    request = task.request()
    best = BestCheckpoint(
        request, mode="proxy", threshold=0.2, samples=50, images_per_pass=1,
        measure=compute_accuracy,
    )  # fmt: skip
    best.update(trained, 1.0, 0)
    wanted = copy.deepcopy(trained.state_dict())
    best.update(trained, 0.1, 1)
    torch.nn.init.zeros_(trained.fc.weight)
    best.update(trained, 0.0, 2)
    assert best.restore_best_weights(trained) == {"selected_epoch": 1, "converged": True}
    assert torch.equal(trained.fc.weight, wanted["fc.weight"])
    assert len(select_evenly_spaced(request.retain, 50)) == 50


class Watch(REM):
    """REM that notes accuracies inside."""

    def on_train_epoch_end(self, trainer, pl_module):
        super().on_train_epoch_end(trainer, pl_module)
        forget = self.request.forget
        full = compute_accuracy(pl_module.model, forget, masked=True)
        self.notes.setdefault("seen", []).append((self.forget_accuracy, full))


@pytest.mark.parametrize("own_batch", [8, None])
def test_rem_redirects_and_leaves_a_plain_network(own_batch, trained, task, engine):
    plain_shapes = {k: v.shape for k, v in trained.state_dict().items()}
    hidden = task.train.rows(task.hidden_indices())
    known = compute_accuracy(trained, hidden)
    options = {"epochs": 12, "batch_size": 16, "optimizer": sgd(0.05), "gamma": 0.35}
    method = Watch(**(OPTIONS | options | {"removal_batch_size": own_batch}))
    healed = method.unlearn(trained, task.request(), fit(engine))
    assert {k: v.shape for k, v in healed.state_dict().items()} == plain_shapes
    assert not isinstance(healed, Expanded)
    base, full = method.notes["seen"][-1]
    assert full - base > 0.4  # the corruption lives in what was dropped
    assert method.notes["redirection_epochs"] == 12
    assert method.notes["removal_epochs"] >= 1
    assert compute_accuracy(healed, hidden) < known - 0.1  # forgotten without ever being named
    assert compute_accuracy(healed, task.test) > 0.8


def batches(task, n=24):
    request = task.request()
    everything, forget = request.get_all_samples(), request.forget
    return {
        "all": next(everything.batches(n)),
        "forget": next(forget.batches(8)),
    }


def gradients(method, model, batch, *, term):
    method.terms.options = type(method.options)(**(vars(method.options) | {"removal_term": term}))
    model.zero_grad()
    method.loss(model, batch).backward()
    return {k: p.grad.clone() for k, p in model.network.named_parameters()}


def test_rem_removal_term_gives_new_channels_no_gradient(trained, task):
    method = REM(**(OPTIONS | {"removal_batch_size": None, "redirect_loss": "ce"}))
    model = method.prepare(trained, task.request()).eval()
    batch = {"all": next(task.request().get_all_samples().batches(200))}
    method.mode = 0

    with_term = gradients(method, model, batch, term=True)
    without = gradients(method, model, batch, term=False)
    for name, grad in with_term.items():
        new = torch.ones_like(grad, dtype=torch.bool)
        new[tuple(slice(s) for s in model._old_shape[name])] = False
        assert torch.allclose(grad[new], without[name][new], atol=1e-6)
    assert any(not torch.allclose(with_term[k], without[k]) for k in without)


def test_rem_steps_move_base_and_full_network_the_right_way(trained, task):
    method = REM(**(OPTIONS | {"removal_batch_size": None, "redirect_loss": "logsig"}))
    model = method.prepare(trained, task.request()).eval()
    forget = next(task.request().forget.batches(64))
    whole = next(task.request().get_all_samples().batches(200))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def losses(masked):
        with torch.no_grad():
            batch = whole if masked else forget
            index = (batch.index,) if masked else ()
            return F.cross_entropy(model(batch.image, *index), batch.label).item()

    method.mode = 1
    before = losses(False)
    method.loss(model, {"forget": forget}).backward()
    optimizer.step()
    assert losses(False) > before  # removal raises the base network's loss
    method.mode = 0
    method.terms.options = type(method.options)(**(vars(method.options) | {"removal_term": False}))
    before = losses(True)
    optimizer.zero_grad()
    method.loss(model, {"all": whole}).backward()
    optimizer.step()
    assert losses(True) < before  # redirection lowers the full network's loss


@pytest.mark.parametrize("weight", ["share", "mean"])
def test_rem_joint_removal_is_weighted(weight, trained, task):
    joint = {"removal_batch_size": None, "redirect_loss": "logsig", "removal_weight": weight}
    method = REM(**(OPTIONS | joint))
    model = method.prepare(trained, task.request()).eval()
    method.mode = 0
    batch = next(task.request().get_all_samples().batches(200))
    with torch.no_grad():
        loss = method.loss(model, {"all": batch}).item()
        full = F.cross_entropy(model(batch.image, batch.index), batch.label, reduction="none")
        base = F.cross_entropy(model(batch.image), batch.label, reduction="none")
        index = (batch.index,)
        frozen = F.cross_entropy(
            method.terms.reference(batch.image, *index), batch.label, reduction="none"
        )
    found = torch.isin(batch.index, task.forget_indices()).float()
    redirect = 2 * F.logsigmoid(full - frozen).mean()
    parts = found.sum() if weight == "mean" else len(found)
    remove = -(2 * F.logsigmoid(base - frozen) * found).sum() / parts
    assert loss == pytest.approx((redirect + remove).item(), abs=1e-5)


@pytest.mark.parametrize("own_batch", [8, None])
def test_separate_statistics_move_with_the_passes_of_their_own_mode(own_batch, trained, task):
    options = {"batch_norm": "separate", "removal_batch_size": own_batch}
    method = REM(**(OPTIONS | options))
    model = method.prepare(trained, task.request()).train()
    assert isinstance(model, Expanded)
    layer = next(name for name, _ in model.network.named_buffers() if "running_mean" in name)
    base = model.base_state()[layer].clone()
    full = model.network.get_buffer(layer).clone()
    whole = next(task.request().get_all_samples().batches(64))
    model(whole.image, whole.index)
    assert torch.equal(model.base_state()[layer], base)
    assert not torch.equal(model.network.get_buffer(layer), full)
    full = model.network.get_buffer(layer).clone()
    model(whole.image)
    assert torch.equal(model.network.get_buffer(layer), full)
    assert not torch.equal(model.base_state()[layer], base)
    assert torch.equal(remove_extra_channels(model).get_buffer(layer), model.base_state()[layer])
    method.mode = 0
    forget = next(task.request().forget.batches(8))
    batch = {"all": whole} | ({"forget": forget} if own_batch else {})
    if own_batch:  # the removal term reaches new channels in no way, batch statistics included
        before = gradients(method, model, batch, term=False)
        after = gradients(method, model, batch, term=True)
        for name, grad in after.items():
            new = torch.ones_like(grad, dtype=torch.bool)
            new[tuple(slice(s) for s in model._old_shape[name])] = False
            assert torch.allclose(grad[new], before[name][new], atol=1e-6)
    method.loss(model, batch).backward()


def test_rem_with_separate_statistics_redirects(trained, task, engine):
    options = {"epochs": 6, "batch_size": 16, "optimizer": sgd(0.05), "gamma": 0.35}
    apart, kept = [], []
    for seed in range(3):  # few epochs from new channels: the middle of three runs
        method = Watch(**(OPTIONS | options | {"batch_norm": "separate", "seed": seed}))
        healed = method.unlearn(copy.deepcopy(trained), task.request(), fit(engine))
        base, full = method.notes["seen"][-1]
        apart.append(full - base)
        kept.append(compute_accuracy(healed, task.test))
    assert sorted(apart)[1] > 0.25
    assert sorted(kept)[1] > 0.8


def test_rem_wakes_the_idle_half_of_a_half_capacity_network(task, engine):
    from unlearn.models.resnet9 import ResNet9

    plan = Pretraining(
        epochs=2, batch_size=32, optimizer=sgd(0.05), schedule=LINEAR, capacity=0.5, density=0.0
    )
    net = plan.build_initial_network(
        lambda **s: ResNet9(**s, width=4), task.train, seed=0, mask_seed=0
    )
    pretrain(net, task.train, plan, engine, augment=None, seed=0)
    method = REM(**(OPTIONS | {"epochs": 1, "max_removal_epochs": 2}))
    model = method.prepare(net, task.request())
    assert model is net
    assert model.density == 0.5
    assert model.get_buffer("masks").any()
    healed = method.finish(model)
    assert healed.group_channels == (2, 4, 8, 4)


@pytest.mark.parametrize(
    "bad",
    [
        {"gamma": 1.5},
        {"beta": 0.0},
        {"density": 0.0},
        {"select": "best"},
        {"ratio": -1.0},
        {"batch_norm": "separate", "expand": False},
    ],
)
def test_rem_refuses_nonsense(bad):
    with pytest.raises(ValueError, match=f"method.{next(iter(bad))}"):
        REM(**(OPTIONS | bad))


def test_rem_without_expansion_relearns_the_retain_set_alone(trained, task, engine):
    ablation = {"expand": False, "redirect_on": "retain", "removal_batch_size": None}
    method = REM(**(OPTIONS | ablation | {"removal_term": False}))
    model = method.prepare(trained, task.request()).eval()
    assert model is trained
    method.mode = 0
    batch = next(task.request().get_all_samples().batches(200))
    with torch.no_grad():
        loss = method.loss(model, {"all": batch}).item()
        own = F.cross_entropy(model(batch.image), batch.label, reduction="none")
    found = torch.isin(batch.index, task.forget_indices())
    assert loss == pytest.approx((own[~found].sum() / 200).item(), abs=1e-5)
    healed = REM(**(OPTIONS | ablation)).unlearn(trained, task.request(), fit(engine))
    assert compute_accuracy(healed, task.test) > 0.8


def test_ideal_rem_is_told_all_corrupted_samples_and_only_if_that_is_declared(trained, task):
    ideal = {"ideal": True, "removal_batch_size": None}
    method = REM(**(OPTIONS | ideal))
    with pytest.raises(ValueError, match="oracle=true"):
        method.prepare(copy.deepcopy(trained), task.request())
    model = method.prepare(trained, task.request(oracle=True))
    assert torch.equal(method.terms.is_removal_target.nonzero().flatten(), task.corrupted_indices)
    assert isinstance(model, Expanded)
    gates = model.select_gates(task.corrupted_indices)
    assert all(torch.equal(g, g[:1].expand_as(g)) for g in gates)  # one mask for all of them
    assert ORACLE_RECORD not in task.request().records
    with pytest.raises(ValueError, match="removal_batch_size"):
        REM(**(OPTIONS | {"ideal": True, "removal_batch_size": 8}))


def test_rem_measures_statistics_on_the_retain_set(trained, task, engine, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "unlearn.methods.rem.recalibrate_batch_norm", lambda model, images: seen.extend(images)
    )
    REM(**(OPTIONS | {"epochs": 1})).unlearn(trained, task.request(), fit(engine))
    assert sum(len(image) for image in seen) == len(task.retain_indices())


@pytest.mark.parametrize("kind", [GradientAscent, NPO, REM])
def test_one_found_sample_is_enough(kind, trained, task, engine, caplog):
    from dataclasses import replace

    one = replace(task, forget=(task.forget_indices()[:1],))
    more = {"beta": 1.0} if kind is NPO else {}
    options = OPTIONS | {"removal_batch_norm": "train"}
    removal = REMOVAL | {"batch_norm": "train"} | more
    method = kind(**(options if kind is REM else removal))
    healed = method.unlearn(trained, one.request(), fit(engine))
    assert "forget batches hold one sample" in caplog.text
    assert compute_accuracy(healed, one.request().forget) == 0
