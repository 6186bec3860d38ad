"""Diagnoses of a network by hand, on tiny networks, and as the command line asks for them."""

import copy
import logging
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.core.types import ImageSet, Request
from unlearn.evaluation.diagnosis.layer_gradients import (
    gradient_magnitude,
    mean_cosine,
    measure_layer_gradients,
)
from unlearn.evaluation.diagnosis.layer_retraining import retrain_layer
from unlearn.evaluation.diagnosis.layer_rewinding import (
    measure_accuracies,
    measure_rewinding,
    rewind_parameters,
)
from unlearn.evaluation.diagnosis.mask_overlap import by_third, compute_overlaps, mean_depth
from unlearn.evaluation.diagnosis.stop_at_epoch import StopAtEpoch
from unlearn.methods.finetune import Finetune
from unlearn.methods.localization.mask import Mask
from unlearn.models.layer_groups import example_images, group_by_layer
from unlearn.models.resnet9 import ResNet9
from unlearn.models.surgery import reinitialize_network
from unlearn.models.vit import ViT
from unlearn.pipeline.diagnose_job import check_diagnosis, diagnose_job, load_earlier_parameters
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.trained_models import load_original
from unlearn.reporting.figures.diagnosis import Diagnosis, draw_diagnosis, make_curves, make_tables
from unlearn.training.pretraining import pretrain
from unlearn.training.recipe import Pretraining
from unlearn.training.schedules import Constant, WarmupLinear
from unlearn.training.unlearning import LightningFit

SHAPE = {"in_channels": 1, "image_size": 12, "num_classes": 3}
TOKENS = {"width": 8, "depth": 2, "heads": 2, "head_width": 4, "mlp_width": 8, "patch_size": 4}


def pixels(*values, labels):
    """Return images of 1 x 1 pixels that reach the network as they are."""
    image = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(
        image, torch.tensor(labels), torch.arange(len(values)), 2, lambda x, _: x.float()
    )


@pytest.fixture(params=["resnet9", "vit"])
def net(request, task):
    torch.manual_seed(0)
    made = ResNet9(**SHAPE, width=4) if request.param == "resnet9" else ViT(**SHAPE, **TOKENS)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.02)
    for batch in [b for _ in range(3) for b in task.train.batches(50)]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(batch.image), batch.label).backward()
        optimizer.step()
    return made.eval()


def groups_of(net, task):
    return group_by_layer(net, example_images(task.request()))


def finetune(epochs=2):
    return Finetune(
        epochs=epochs, batch_size=64, schedule=WarmupLinear(warmup_fraction=0.5, stretch=0.5),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
    )  # fmt: skip


def test_pull_and_cosine_by_hand():
    one = {"a": torch.tensor([[3.0, 4.0]]), "b": torch.tensor([2.0]), "still": torch.zeros(3)}
    two = {"a": torch.tensor([[4.0, 3.0]]), "b": torch.tensor([-1.0]), "still": torch.ones(3)}
    assert gradient_magnitude(one, ["a", "b"]) == pytest.approx(5 / math.sqrt(2) + 2)
    assert mean_cosine(one, two, ["a"]) == pytest.approx(24 / 25)
    assert mean_cosine(one, two, ["a", "b", "still"]) == pytest.approx((24 / 25 - 1) / 2)
    assert math.isnan(mean_cosine(one, two, ["still"]))


def test_accounting_of_a_linear_map_by_hand():
    # A map of zeros says 1/2 for both classes: the slope of its weight is (1/2 - [class]) * pixel.
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    request = Request(
        forget=pixels(2, labels=[0]),
        retain=pixels(0, 4, 1, labels=[0, 1, 0]).rows(torch.tensor([1, 2])),
    )
    found = measure_layer_gradients(net, request, {"fc": ["1.weight", "1.bias"]}, batch_size=1)[
        "fc"
    ]
    # Forget: weight (-1, 1), bias (-1/2, 1/2). Retain: weight (2 - 1/2, -2 + 1/2) / 2, bias 0.
    assert found["forget"] == pytest.approx(1 + 0.5)
    assert found["retain"] == pytest.approx(0.75)
    assert found["cosine"] == pytest.approx(-1)


def test_accounting_leaves_the_network_alone_and_no_batch_size_matters(net, task):
    before = copy.deepcopy(net.state_dict())
    groups = groups_of(net, task)
    one, two = (
        measure_layer_gradients(net, task.request(), groups, batch_size=b) for b in (7, 128)
    )
    for layer in groups:
        assert one[layer] == pytest.approx(two[layer], rel=1e-3)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert not net.training


def test_a_layer_is_rewound_alone_and_buffers_stay(net, task):
    first = {n: p.detach() for n, p in reinitialize_network(net, 0).named_parameters()}
    before = copy.deepcopy(net.state_dict())
    groups = groups_of(net, task)
    layer = list(groups)[-1]
    back = rewind_parameters(net, first, groups[layer])
    for name, value in back.state_dict().items():
        assert torch.equal(value, (first if name in groups[layer] else before)[name]), name
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    found = measure_rewinding(net, first, task.request(), groups)
    assert found[layer] == measure_accuracies(back, task.request())
    assert len({tuple(row.values()) for row in found.values()}) > 1
    with pytest.raises(ValueError, match=r"'fc.weight' is not of the same net"):
        rewind_parameters(net, {"fc.weight": torch.zeros(1)}, ["fc.weight"])


@pytest.mark.parametrize("batch_norm", ["update", "freeze"])
def test_one_layer_alone_is_retrained(net, task, engine, batch_norm):
    first = {n: p.detach() for n, p in reinitialize_network(net, 0).named_parameters()}
    names = next(iter(groups_of(net, task).values()))
    fit = LightningFit(engine, augment=None, seed=0)
    new, curve, reason = retrain_layer(
        net, first, task.request(), names, finetune(), batch_norm=batch_norm, fit=fit
    )
    assert reason is None
    assert [row["epoch"] for row in curve] == [0, 1, 2]
    start = rewind_parameters(net, first, names)
    assert {k: curve[0][k] for k in ("forget", "retain")} == measure_accuracies(
        start, task.request()
    )
    assert {k: curve[-1][k] for k in ("forget", "retain")} == measure_accuracies(
        new, task.request()
    )
    buffers = {n for n, _ in net.named_buffers()}
    moved = {k for k, v in new.state_dict().items() if not torch.equal(v, start.state_dict()[k])}
    assert moved - buffers == set(names)
    assert bool(moved & buffers) == (bool(buffers) and batch_norm == "update")


def test_retraining_learns_the_retain_set_and_no_other(net, task, engine):
    first = {n: p.detach() for n, p in reinitialize_network(net, 0).named_parameters()}
    names = list(groups_of(net, task).values())[-1]
    swapped = Request(forget=task.request().retain, retain=task.request().forget)
    found = []
    for request in (task.request(), swapped):
        fit = LightningFit(engine, augment=None, seed=0)
        found.append(
            retrain_layer(net, first, request, names, finetune(8), batch_norm="freeze", fit=fit)[1][
                -1
            ]
        )
    assert found[0]["retain"] > found[1]["forget"]  # of the many, those learned and those not


def masks():
    chosen = {"first": (4, 2, 0), "last": (0, 2, 4), "all": (4, 4, 4)}
    return {
        name: Mask({f"l{i}": torch.arange(4) < n for i, n in enumerate(counts)})
        for name, counts in chosen.items()
    }


LAYERS = {"one": ["l0"], "two": ["l1"], "three": ["l2"]}


def test_depth_and_overlap_of_masks_by_hand():
    first, last, every = masks().values()
    assert mean_depth(first, LAYERS) == pytest.approx(2 * 0.5 / 6)
    assert mean_depth(last, LAYERS) == pytest.approx((2 * 0.5 + 4) / 6)
    assert by_third(first, LAYERS) == {"input": 1, "middle": 0.5, "output": 0}
    two = {"one": ["l0", "l1"], "two": ["l2"]}
    assert by_third(first, two) == {"input": 0.75, "middle": 0}
    assert mean_depth(every, {"one": ["l0", "l1", "l2"]}) == 0
    shared = compute_overlaps(masks())
    assert shared["first"] == pytest.approx({"first": 1, "last": 2 / 10, "all": 6 / 12})
    assert shared["last"]["first"] == shared["first"]["last"]


def found(learned=True):
    rows = {layer: {"forget": 0.5, "retain": 1.0} for layer in LAYERS}
    curve = [{"epoch": 0, "forget": 0.1, "retain": 0.2}, {"epoch": 1, "forget": 0.3, "retain": 0.9}]
    return Diagnosis(
        groups=LAYERS,
        parameters=dict.fromkeys(LAYERS, 4),
        whole={"forget": 1.0, "retain": 0.75},
        gradients={layer: {"forget": 2.0, "retain": 0.5, "cosine": -0.25} for layer in LAYERS},
        rewound=rows,
        retrained=dict.fromkeys(LAYERS, curve) if learned else {},
        masks=masks() if learned else {},
    )


def test_tables_of_a_diagnosis():
    made = make_tables(found())
    none, one, *_ = made["diagnosis"].to_dict("records")
    assert (none["layer"], none["n"], none["rewound/retain"]) == ("(none)", 12, 0.75)
    assert none["gradient/ratio"] != none["gradient/ratio"]
    assert (one["gradient/ratio"], one["gradient/cosine"]) == (4, -0.25)
    assert (one["rewound/forget"], one["retrained/retain"]) == (0.5, 0.9)
    assert made["diagnosis_shares"]["first"].tolist() == [1, 0.5, 0]
    assert made["diagnosis_masks"]["output third"].tolist() == [0, 1, 1]
    assert made["diagnosis_overlap"]["all"].tolist() == pytest.approx([0.5, 0.5, 1])
    assert set(make_tables(found(learned=False))) == {"diagnosis"}
    assert "retrained/forget" not in make_tables(found(learned=False))["diagnosis"]
    assert len(make_curves(found())) == 6


def test_the_figure_has_a_panel_for_each_part():
    drawn = [ax for ax in draw_diagnosis(found()).get_axes() if ax.get_ylabel()]
    assert [ax.get_ylabel().replace("\n", " ") for ax in drawn] == [
        "gradient", "cosine of the two", "accuracy, layer rewound", "accuracy, layer retrained",
        "share of layer in mask",
    ]  # fmt: skip
    retain = drawn[2].get_lines()[2]
    assert list(retain.get_ydata()) == [1, 1, 1]
    assert [bar.get_height() for bar in drawn[1].patches] == [-0.25] * 3
    assert len(draw_diagnosis(found(learned=False)).get_axes()) == 3


def test_a_training_that_is_stopped_is_as_the_whole_one_was_then(task, engine):
    class Keep(StopAtEpoch):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch + 1 == self.epoch:
                self.state = copy.deepcopy(pl_module.model.state_dict())

    recipe = Pretraining(
        epochs=4, batch_size=64, capacity=1.0, density=0.0, schedule=Constant(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05),
    )  # fmt: skip
    kept, states = Keep(2), []
    for recorder in (kept, StopAtEpoch(2)):
        torch.manual_seed(0)
        net = ResNet9(**SHAPE, width=2)
        pretrain(net, task.train, recipe, engine, augment=None, seed=0, recorders=[recorder])
        states.append(net.state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in kept.state.items())
    assert not torch.equal(states[0]["fc.weight"], states[1]["fc.weight"])


def job(tmp_path, *overrides):
    tiny = [
        "dataset=synthetic", "model.width=4", "pretraining.batch_size=64", "trainer.accelerator=cpu",
        f"paths.root={tmp_path}", *overrides,
    ]  # fmt: skip
    with enable_composition([config_dir()]):
        content = to_plain_config(compose_config("evaluate", tiny, [config_dir()]))
    return Job(content, "r0", tmp_path, content["names"], lambda n: instantiate(n, _convert_="all"))


def test_everything_by_config_and_an_untrained_network_is_its_own_start(tmp_path, caplog):
    wanted = job(
        tmp_path, "diagnosis=all", "pretraining.epochs=1", "pretraining.optimizer.lr=1e-9",
        "diagnosis.retraining.method.epochs=1",
    )  # fmt: skip
    with caplog.at_level(logging.INFO, logger="unlearn"):
        diagnose_job(wanted)
    reports = tmp_path / "reports"
    table = pd.read_csv(reports / "diagnosis.csv")
    assert table["layer"].tolist()[:2] == ["(none)", "conv1.0"]
    # Next to nothing was learned, so a layer rewound to the weights of the seed changes nothing.
    assert table["rewound/retain"].nunique() == table["rewound/forget"].nunique() == 1
    assert table["retrained/retain"].notna().sum() == len(table) - 1 == 9
    overlap = pd.read_csv(reports / "diagnosis_overlap.csv", index_col="strategy")
    assert overlap.loc["random", "random"] == 1 > overlap.loc["deepest", "shallowest"]
    masks_table = pd.read_csv(reports / "diagnosis_masks.csv")
    assert (masks_table["share"] <= 0.3).all() and len(masks_table) == 8
    for name in ("diagnosis.md", "diagnosis.tex", "diagnosis.png", "diagnosis_shares.md"):
        assert (reports / name).stat().st_size > 0
    assert len(pd.read_csv(reports / "diagnosis_retraining.csv")) == 2 * 9


def test_layers_are_rewound_to_what_was_asked_for(tmp_path):
    found = {}
    for to in ("initial", "fresh", "1"):
        wanted = job(
            tmp_path, "diagnosis=layers", "pretraining.epochs=2", f"diagnosis.rewind_to={to}"
        )
        context = load_with_forget_set(wanted)
        network = load_original(context)[0]
        found[to] = load_earlier_parameters(context, network)
    found["end"] = dict(network.named_parameters())
    own = tmp_path / "own.pt"
    torch.save(network.state_dict(), own)
    wanted = job(tmp_path, "diagnosis=layers", f"diagnosis.rewind_to={own}")
    found["file"] = load_earlier_parameters(replace(context, job=wanted), network)
    assert torch.equal(found["file"]["fc.weight"], found["end"]["fc.weight"])
    del found["file"]
    far = {k: (v["fc.weight"] - found["initial"]["fc.weight"]).norm() for k, v in found.items()}
    assert 0 == far["initial"] < far["1"] < far["end"] < far["fresh"]


def test_blocks_in_place_of_layers(tmp_path):
    diagnose_job(
        job(tmp_path, "diagnosis=layers", "pretraining.epochs=1", "diagnosis.grouping=block")
    )
    layers = ["(none)", "conv1.0", "conv2.0", "res1", "conv3.0", "res2", "conv4.0", "fc"]
    assert pd.read_csv(tmp_path / "reports" / "diagnosis.csv")["layer"].tolist() == layers
    assert not (tmp_path / "reports" / "diagnosis_masks.csv").exists()


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("diagnosis.grouping=row", "diagnosis.grouping must be one of layer, block, got row"),
        ("diagnosis.rewind_to=8", r"diagnosis.rewind_to must be an epoch in 1..7 .* got 8"),
        ("diagnosis.rewind_to=no.pt", "diagnosis.rewind_to must be initial, fresh, .* got no.pt"),
        ("checkpoint=own.pt", r"diagnosis.rewind_to must be fresh or a checkpoint file with check"),
        (
            "diagnosis.retraining.batch_norm=off",
            "batch_norm must be one of update, freeze, got off",
        ),
        ("diagnosis.masks.budget=null", r"diagnosis.masks.budget must be in \(0, 1\], got null"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(tmp_path, override, text):
    wanted = job(tmp_path, "diagnosis=all", "pretraining.epochs=8", override)
    with pytest.raises(ValueError, match=text):
        check_diagnosis(wanted.config["diagnosis"], wanted.config)
    with pytest.raises(ValueError, match=text):
        diagnose_job(wanted)
    assert not (tmp_path / "checkpoints").exists()
