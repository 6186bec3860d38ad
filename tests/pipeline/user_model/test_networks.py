"""Networks as users build them: each kind is healed, or refused in one line before any work."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unlearn import heal
from unlearn.models.adapted import copy_network, find_logits, restore_network, use_logits
from unlearn.training.network_trial import try_training

LABEL = torch.arange(36) % 3


@pytest.fixture(scope="module")
def pairs():
    """Images whose class is their brightest channel, four of them labelled wrongly."""
    generator = torch.Generator().manual_seed(0)
    image = 0.5 * torch.randn(36, 3, 8, 8, generator=generator)
    image[torch.arange(36), LABEL] += 1.5
    given = LABEL.clone()
    given[:4] = (given[:4] + 1) % 3
    return image, given


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x))


class Pair(Plain):
    def forward(self, x):
        return self.head(self.body(x)), self.body(x)


class Named(Plain):
    def forward(self, x):
        return {"features": self.body(x), "logits": self.head(self.body(x))}


class Fields(Plain):
    """As networks of transformers: an object with fields, and optional arguments."""

    def forward(self, x=None, labels=None, return_dict=True):
        return SimpleNamespace(logits=self.head(self.body(x)), loss=None)


class Auxiliary(Plain):
    def __init__(self):
        super().__init__()
        self.aux = nn.Linear(8, 3)

    def forward(self, x):
        y = self.body(x)
        return (self.head(y), self.aux(y)) if self.training else self.head(y)


class Optional(Plain):
    def forward(self, x, index=None, mask=None):
        assert index is None
        assert mask is None
        return super().forward(x)


class ByName(Plain):
    def forward(self, *, pixel_values, labels=None):  # type: ignore[override]
        return super().forward(pixel_values)


class Views(Plain):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 6, 3), nn.Linear(216, 3)

    def forward(self, x):
        return self.head(self.body(x).relu().view(len(x), -1))


class Switched(Plain):
    def __init__(self):
        super().__init__()
        self.grad_checkpointing = True

    def forward(self, x):
        if self.grad_checkpointing and self.training:
            return self.head(checkpoint(self.body, x, use_reentrant=False))
        return super().forward(x)


class LowRank(Plain):
    """A fixed map plus a trained one of low rank (LoRA), on a fixed body."""

    def __init__(self):
        super().__init__()
        self.body.requires_grad_(False)
        self.fixed = nn.Linear(8, 8).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, x):
        y = self.body(x)
        return self.head((self.fixed(y) + self.up(self.down(y))).relu())


def reparametrized():
    network = Plain()
    nn.utils.parametrizations.weight_norm(network.body[0])
    nn.utils.parametrizations.spectral_norm(network.head)
    return network


KINDS = {
    Pair: "returns tuple, of which entry 0 is used", Named: "of which 'logits' is used",
    Fields: "of which 'logits' is used", Auxiliary: "tuple in training, of which entry 0 is used",
    Optional: None, ByName: None, Views: "needs contiguous memory (view)",
    Switched: "gradient checkpointing is switched off", LowRank: "8 of 12 parameters are frozen",
    reparametrized: None,
}  # fmt: skip


def trained(build, pairs):
    torch.manual_seed(0)
    network = build().train()
    steps = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 0.02)
    for _ in range(15):
        out = network(pixel_values=pairs[0]) if build is ByName else network(pairs[0])
        steps.zero_grad()
        F.cross_entropy(find_logits(out)[0], pairs[1]).backward()
        steps.step()
    return network.eval()


@pytest.mark.parametrize("build", KINDS, ids=lambda b: b.__name__)
def test_each_kind_is_healed_and_given_back_as_it_was(build, pairs, engine):
    """REM does all that a method can do: expand, remove, redirect, drop."""
    network = trained(build, pairs)
    before = copy.deepcopy(network.state_dict())
    options = {"epochs": 1, "batch_size": 12, "force": True, "gamma": 0.0, "max_removal_epochs": 2}
    result = heal(
        network, retain=pairs, forget=[0, 1, 2, 3], method="rem", options=options, device="cpu"
    )
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    told = result.metrics.get("network/adapted")
    assert (told is None) if KINDS[build] is None else (KINDS[build] in told)
    healed = result.model
    assert type(healed) is type(network)
    assert list(healed.state_dict()) == list(before)
    kwargs = {"pixel_values": pairs[0]} if build is ByName else {}
    args = () if build is ByName else (pairs[0],)
    assert type(healed(*args, **kwargs)) is type(network(*args, **kwargs))
    fixed = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert [n for n, p in healed.named_parameters() if not p.requires_grad] == fixed
    assert all(torch.equal(healed.state_dict()[name], before[name]) for name in fixed)
    if build is Switched:
        assert healed.grad_checkpointing


@pytest.mark.parametrize("method", ["salun", "del", "eu_k", "influence", "retrain"])
def test_methods_that_pick_or_redraw_weights_leave_frozen_ones_alone(method, pairs):
    network = trained(LowRank, pairs)
    short = {} if method in ("del", "influence") else {"epochs": 1, "batch_size": 12}
    short |= {"epochs": 1} if method == "del" else {}
    more = ["pretraining.epochs=1"] if method == "retrain" else []
    result = heal(
        network,
        retain=pairs,
        forget=[0, 1],
        method=method,
        options=short,
        overrides=more,
        device="cpu",
    )
    for name, p in network.named_parameters():
        same = torch.equal(result.model.state_dict()[name], p)
        assert same or p.requires_grad, name


def test_half_precision_is_given_back(pairs):
    network = trained(Plain, pairs).bfloat16()
    own, did = copy_network(network)
    assert {p.dtype for p in own.parameters()} == {torch.float32}
    assert did.notes == [
        "weights of type bfloat16 are trained as float32 and given back as bfloat16"
    ]
    back = restore_network(own, did)
    for name, value in network.state_dict().items():
        assert back.state_dict()[name].dtype == value.dtype
        assert torch.equal(back.state_dict()[name], value)


def test_wrappers_are_opened_and_frozen_models_thawed():
    network = Plain().eval().requires_grad_(False)
    for wrapped in (torch.compile(network, backend="eager"), nn.DataParallel(network)):
        own, did = copy_network(wrapped)
        assert type(own) is Plain
        assert "is opened" in did.notes[0]
        assert all(p.requires_grad for p in own.parameters())
        assert not any(p.requires_grad for p in restore_network(own, did).parameters())


def test_parts_that_are_compiled_are_opened():
    network = Plain()
    network.body = torch.compile(network.body, backend="eager")
    own, did = copy_network(network)
    assert "body.0.weight" in own.state_dict()
    assert did.notes == ["compiled part 'body' is opened"]


def test_what_cannot_be_trained_is_refused_in_one_line(pairs, engine):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # replaced in torch, still in use
        scripted = torch.jit.trace(Plain().eval(), pairs[0][:2])
    with pytest.raises(ValueError, match=r"scripted or traced module .* pass the network"):
        heal(scripted, retain=pairs, forget=[0], method="original", device="cpu")
    with pytest.raises(ValueError, match="not initialised: run the network once"):
        copy_network(nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3)))
    integer = Plain()
    integer.head.weight = nn.Parameter(torch.ones(3, 8, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"'head\.weight' of Plain is torch\.int8"):
        copy_network(integer)
    with pytest.raises(ValueError, match=r"no logits \(B, K\) in its output dict \['a', 'b'\]"):
        find_logits({"a": torch.ones(2, 3), "b": torch.ones(2, 4)})

    class Detached(Plain):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(ValueError, match=r"Detached cannot be trained: .*does not require grad"):
        try_training(Detached(), pairs[0][:2], engine)


def test_checkpointing_within_the_code_stops_rem_alone(pairs):
    class Recomputing(Plain):
        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=False))

    given = {"retain": pairs, "forget": [0, 1], "device": "cpu"}
    network = Recomputing().eval()
    with pytest.raises(ValueError, match=r"Recomputing cannot be expanded: .*checkpointing.*npo"):
        heal(network, **given, method="rem")
    assert heal(network, **given, method="finetune", options={"epochs": 1}).model is not None


def test_looking_at_the_outputs_changes_nothing(pairs):
    network = Auxiliary()
    before, state = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    assert use_logits(network, pairs[0][:2])
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training
    assert use_logits(network, pairs[0][:2])  # once more: one hook all the same
    assert len(network._forward_hooks) == 1
