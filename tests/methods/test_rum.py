"""RUM hands each part to its method, with the model of the part before and the right retain set."""

import copy
from dataclasses import replace

import pytest
import torch
from hydra.utils import instantiate

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.methods.components.saliency import compute_summed_gradient, select_top_fraction
from unlearn.methods.finetune import Finetune
from unlearn.methods.original import Original
from unlearn.methods.rum import RUM
from unlearn.methods.salun import SalUn
from unlearn.scoring.memorization.partition import AtRandom, ByScore

pytestmark = pytest.mark.numeric

NAMES = ["low", "mid", "high"]


class Spy(Original):
    """Adds one to a weight and notes what it was given."""

    def __init__(self, seen, name):
        super().__init__()
        self.seen, self.name = seen, name

    def __deepcopy__(self, memo):
        return Spy(self.seen, self.name)

    def unlearn(self, model, request, fit):
        weight = model.fc.weight
        self.seen.append((self.name, weight[0, 0].item(), request))
        with torch.no_grad():
            weight[0, 0] += 1
        return model


@pytest.fixture
def request_(task):
    return replace(task.request(), records={"score": torch.arange(200.0).flip(0)})


def rum(seen, **options):
    usual = {
        "mode": "refined",
        "base": Spy(seen, "base"),
        "steps": {n: Spy(seen, n) for n in NAMES},
        "partition": ByScore(names=NAMES, record="score", tie_seed=0),
        "shuffled": AtRandom(names=NAMES, seed=0),
        "order": NAMES,
        "retain": "cumulative",
    }
    return RUM(**usual | options)


def walk(network, request, **options):
    seen = []
    method = rum(seen, **options)
    network.fc.weight.data[0, 0] = 0
    method.unlearn(network, request, None)
    return method, seen


def test_parts_come_in_order_each_from_the_model_before(network, request_):
    method, seen = walk(network, request_)
    assert [(name, start) for name, start, _ in seen] == [("base", 0), ("base", 1), ("base", 2)]
    found = [r.forget.index.tolist() for _, _, r in seen]
    every = request_.forget.index
    # the score falls with the index: the least memorized are last
    assert found == [every[6:].tolist(), every[3:6].tolist(), every[:3].tolist()]
    assert method.notes["sizes"] == [4, 3, 3]
    assert method.notes["methods"] == ["Spy", "Spy", "Spy"]


def test_parts_still_to_come_are_retain_and_those_done_are_gone(network, request_):
    everyone = request_.get_all_samples().index
    _, seen = walk(network, request_)
    gone = torch.tensor([], dtype=torch.long)
    for _, _, request in seen:
        gone = torch.cat([gone, request.forget.index])
        assert torch.equal(request.retain.index, everyone[~torch.isin(everyone, gone)])
    _, seen = walk(network, request_, retain="final")
    assert all(torch.equal(r.retain.index, request_.retain.index) for _, _, r in seen)


def test_another_order_changes_what_is_retained(network, request_):
    _, seen = walk(network, request_, order=["high", "low", "mid"])
    assert [len(r.retain) for _, _, r in seen] == [197, 193, 190]
    with pytest.raises(ValueError, match=r"must hold the parts .*got \['low', 'high'\]"):
        walk(network, request_, order=["low", "high"])


def test_each_part_has_its_own_method(network, request_):
    _, seen = walk(network, request_, mode="meta")
    assert [name for name, _, _ in seen] == NAMES
    with pytest.raises(ValueError, match="without a method"):
        walk(network, request_, mode="meta", steps={"low": Original()})


def test_vanilla_is_the_method_itself_bit_by_bit(resnet, request_, recipe, fit):
    twin, third = copy.deepcopy(resnet), copy.deepcopy(resnet)
    plain = Finetune(**recipe()).unlearn(resnet, request_, fit).state_dict()
    base = Finetune(**recipe())
    vanilla = rum([], mode="vanilla", base=base).unlearn(twin, request_, fit).state_dict()
    single = {"order": ["all"], "partition": ByScore(names=["all"], record="score", tie_seed=0)}
    whole = rum([], base=base, **single).unlearn(third, request_, fit).state_dict()
    for key, value in plain.items():
        assert torch.equal(value, vanilla[key])
        assert torch.equal(value, whole[key])


def test_doing_nothing_leaves_every_bit(network, request_):
    before = copy.deepcopy(network.state_dict())
    after = rum([], base=Original()).unlearn(network, request_, None).state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_corrective_and_localized_methods_serve_parts(network, request_, fit):
    """REM expands the network, NPO climbs, DEL masks it: each hands a plain one on."""
    tiny = ["dataset=synthetic", "pretraining.epochs=1", "method=rum", "method.mode=meta"]
    chosen = [
        f"method@method.steps.{p}={m}" for p, m in zip(NAMES, ("rem", "npo", "del"), strict=True)
    ]
    with enable_composition([config_dir()]):
        node = to_plain_config(compose_config("unlearn", [*tiny, *chosen], [config_dir()]))[
            "method"
        ]
    for name in NAMES:
        node["steps"][name] |= {"epochs": 1, "batch_size": 64}
    node["steps"]["low"]["max_removal_epochs"] = 1
    method = instantiate(node, _convert_="all")
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    before = copy.deepcopy(network.state_dict())
    healed = method.unlearn(network, request_, fit).state_dict()
    assert method.notes["methods"] == ["REM", "NPO", "DEL"]
    assert {k: v.shape for k, v in healed.items()} == shapes
    assert any(not torch.equal(v, before[k]) for k, v in healed.items())
    assert method.notes["high/localization/budget"] == 0.3


def test_salient_weights_are_found_anew_for_each_part(resnet, request_, recipe, fit):
    found = []

    class Watched(SalUn):
        def prepare(self, model, request):
            model = super().prepare(model, request)
            slope = compute_summed_gradient(model, request.forget, 100)
            own = select_top_fraction({k: v.abs() for k, v in slope.items()}, 0.3)
            found.append((request.forget.index.tolist(), own, self.salient))
            return model

        def __deepcopy__(self, memo):
            return Watched(**options)

    options = {
        "form": "weight_saliency", "salient_fraction": 0.3, "salient": "largest", "drift": False,
        "alpha": 0.001, "redraw": True, "exclude_true": True, "mix": "union", "seed": 0,
    } | recipe()  # fmt: skip
    rum([], base=Watched(**options)).unlearn(resnet, request_, fit)
    assert [len(rows) for rows, _, _ in found] == [4, 3, 3]
    for _, own, used in found:
        same = [(own[k] == used[k]).float().mean().item() for k in own]
        assert min(same) > 0.99
    first, last = found[0][2], found[-1][2]
    assert any(not torch.equal(first[k], last[k]) for k in first)


def test_shuffling_has_the_sizes_but_not_the_parts(network, request_):
    method, seen = walk(network, request_, mode="shuffle")
    assert method.notes["sizes"] == [4, 3, 3]
    refined = walk(network, request_)[1]
    shuffled = torch.cat([r.forget.index for _, _, r in seen])
    assert torch.equal(shuffled.sort().values, request_.forget.index)
    assert not torch.equal(shuffled, torch.cat([r.forget.index for _, _, r in refined]))


def test_without_a_score_there_is_nothing_to_refine(network, task):
    with pytest.raises(ValueError, match="needs a score"):
        walk(network, replace(task.request(), records={}))
    walk(network, replace(task.request(), records={}), mode="shuffle")


@pytest.mark.parametrize(("option", "value"), [("mode", "chained"), ("retain", "all")])
def test_unknown_options_are_refused(option, value):
    with pytest.raises(ValueError, match=rf"method.{option} must be .*, got {value}"):
        rum([], **{option: value})
