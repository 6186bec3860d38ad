"""REM over several requests, the weight of its removal term, and its candidates."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from unlearn.config.registration import config_dir
from unlearn.core.types import Request
from unlearn.methods.rem import REM
from unlearn.methods.rem_options import ORACLE_RECORD
from unlearn.models.expansion.expanded import Expanded, expand_network
from unlearn.models.inference import compute_accuracy
from unlearn.training.optimizers import NormalizedSGD
from unlearn.training.schedules import Constant
from unlearn.training.unlearning import LightningFit

pytestmark = pytest.mark.numeric

OPTIONS = {
    "epochs": 2, "batch_size": 32, "schedule": Constant(), "seed": 0, "gamma": 0.2, "beta": 1.0,
    "optimizer": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "removal_optimizer": lambda p: NormalizedSGD(p, lr=0.02, momentum=0.0, weight_decay=0.0),
    "density": 0.5, "ratio": 1.0, "shared_mask": True, "removal_term": True,
    "removal_batch_size": 8, "removal_weight": "share", "max_removal_epochs": 30,
    "reference": "masked", "redirect_loss": "logsig", "redirect_on": "all", "removal_loss": "npo",
    "removal_batch_norm": "eval", "batch_norm": "shared", "select": "last",
    "select_original": True, "select_samples": None, "expand": True, "ideal": False,
}  # fmt: skip


def rem(**options):
    return REM(**(OPTIONS | options))


def fit(engine):
    return LightningFit(engine, augment=None, seed=0)


@pytest.mark.parametrize("gone", [range(0, 100, 10), range(190, 200)], ids=["spread", "last"])
def test_a_sample_has_one_mask_whatever_was_requested_before(gone, resnet, task):
    """Indices are never renumbered; an index equal to the size would switch the masks off."""
    now = torch.arange(5, 190, 10)
    later = replace(task, forget=(torch.tensor(list(gone)), now))
    whole = rem().prepare(copy.deepcopy(resnet), replace(task, forget=(now,)).request())
    rest = rem().prepare(copy.deepcopy(resnet), later.request(1))
    assert isinstance(whole, Expanded) and isinstance(rest, Expanded)
    index = later.request(1).get_all_indices()
    assert len(index) == 190
    for one, two in zip(whole.extra_gates(index), rest.extra_gates(index), strict=True):
        assert torch.equal(one, two)
    assert all(gate.any(1).float().mean() > 0.8 for gate in rest.extra_gates(index))
    off = torch.full((3,), -1)
    assert not any(gate.any() for gate in rest.extra_gates(off))


def test_the_oracle_leaves_out_the_samples_of_earlier_requests(resnet, task):
    corrupted = task.corrupted_indices
    last = corrupted[-1:]
    later = replace(task, forget=(torch.arange(int(last), 200), corrupted[:5]))
    method = rem(ideal=True, removal_batch_size=None)
    model = method.prepare(resnet, later.request(1, oracle=True))
    assert ORACLE_RECORD in later.request(1, oracle=True).records
    assert isinstance(model, Expanded)
    left = corrupted[corrupted < last]
    assert torch.equal(method.terms.is_removal_target.nonzero().flatten(), left)
    assert not any(gate.any() for gate in model.extra_gates(torch.tensor([-1])))


def test_a_network_of_a_smaller_training_set_is_refused(resnet, task):
    small = expand_network(resnet, ratio=1.0, num_samples=199, density=0.5, seed=0)
    with pytest.raises(ValueError, match=r"masks for the samples 0..198, got index 199"):
        rem().prepare(small, task.request())


@pytest.mark.parametrize("batch_norm", ["shared", "recalibrate", "separate"])
@pytest.mark.parametrize("weight", ["share", "mean"])
@pytest.mark.parametrize("own_batch", [True, False])
def test_the_removal_term_has_its_weight_on_every_path(own_batch, weight, batch_norm, resnet, task):
    request = task.request()
    method = rem(
        removal_weight=weight, batch_norm=batch_norm, removal_batch_size=8 if own_batch else None
    )
    model = method.prepare(resnet, request).eval()
    method.mode = 0
    whole, forget = next(request.get_all_samples().batches(150)), next(request.forget.batches(8))
    assert 0 < torch.isin(whole.index, request.forget.index).sum() < len(request.forget)
    found = torch.isin(whole.index, request.forget.index)

    def losses(network, batch, masked):
        index = (batch.index,) if masked else ()
        with torch.no_grad():
            return F.cross_entropy(network(batch.image, *index), batch.label, reduction="none")

    reference = method.terms.reference
    frozen = losses(reference, whole, True)
    redirect = 2 * F.logsigmoid(losses(model, whole, True) - frozen).mean()
    if own_batch:
        gap = losses(model, forget, False) - losses(reference, forget, True)
        by_hand = {"share": len(request.forget) / len(task.train), "mean": 1.0}[weight]
    else:
        gap = (losses(model, whole, False) - frozen)[found]
        by_hand = {"share": len(gap) / len(whole.label), "mean": 1.0}[weight]
    expected = redirect - by_hand * 2 * F.logsigmoid(gap).mean()
    batch = {"all": whole} | ({"forget": forget} if own_batch else {})
    assert method.loss(model, batch).item() == pytest.approx(expected.item(), abs=1e-5)


def test_shipped_options_state_the_weight_and_the_candidates_they_were_chosen_with():
    files = sorted((Path(config_dir()) / "method_defaults" / "rem").glob("*.yaml"))
    for file in files:
        options = yaml.safe_load(file.read_text())
        assert options["removal_batch_size"] and options["removal_weight"] == "mean", file.stem
        assert file.stem.endswith("_etd") == ("density" not in options)  # set by pre-training
        assert not {"gamma", "select_original"} & set(options), file.stem
        assert options.get("select", "score") == "score", file.stem
    assert len(files) == 3


def forgotten(request):
    """Return the request with labels of the forget set that no network has learned."""
    forget = replace(request.forget, label=(request.forget.label + 1) % 3)
    return Request(forget=forget, retain=request.retain, records=request.records)


@pytest.mark.parametrize("select_original", [True, False])
def test_the_original_is_a_candidate(select_original, resnet, task, engine):
    request = forgotten(task.request())
    assert compute_accuracy(resnet, request.forget) == 0
    before = copy.deepcopy(resnet.state_dict())
    destructive = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.5), "redirect_loss": "ce"}
    method = rem(select="proxy", select_original=select_original, **destructive)
    after = method.unlearn(resnet, request, fit(engine)).state_dict()
    same = all(torch.equal(before[k], v) for k, v in after.items())
    assert same == (method.notes["selected_epoch"] == 0) == select_original


@pytest.mark.parametrize("select", ["proxy", "last"])
def test_a_candidate_that_is_not_chosen_changes_nothing(select, resnet, task, engine):
    healed, notes = [], []
    for original in (True, False):
        method = rem(epochs=4, select=select, select_original=original, redirect_loss="ce")
        model = method.unlearn(copy.deepcopy(resnet), task.request(), fit(engine))
        healed.append(model.state_dict())
        notes.append({k: v for k, v in method.notes.items() if k != "measured_images"})
    assert notes[0] == notes[1] and notes[0]["selected_epoch"] > 0
    assert all(torch.equal(v, healed[1][k]) for k, v in healed[0].items())


def test_statistics_are_recomputed_on_batches_of_all_classes(resnet, task, engine):
    """On a set sorted by class, stored batches of one class lack the variance between classes."""
    view, label = task.train.view, task.train.label

    def brighter(image, index):
        return view(image, index) + 5 * label[index][:, None, None, None]

    request = replace(task, train=replace(task.train, view=brighter)).request()
    order = request.retain.label.argsort(stable=True)
    ordered = replace(request, retain=request.retain.rows(order))
    still = {"batch_norm": "recalibrate", "max_removal_epochs": 0, "epochs": 1, "batch_size": 60}
    healed = [
        rem(**still).unlearn(copy.deepcopy(resnet), each, fit(engine)).state_dict()
        for each in (request, ordered)
    ]
    for key, value in healed[0].items():
        if "running" not in key:
            assert torch.equal(value, healed[1][key])  # so that only the order differs
    first = next(key for key in healed[0] if "running_var" in key)
    torch.testing.assert_close(healed[0][first], healed[1][first], rtol=0.1, atol=1e-4)
