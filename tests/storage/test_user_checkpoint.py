"""A user's checkpoint: read safely, fitted by name, written back in its own form."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from unlearn.core.files import hash_file
from unlearn.storage.user_checkpoint import match_checkpoint


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), flat=nn.Flatten(), fc=nn.Linear(16, 3)
        )
    )


def half(state):
    return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}


FORMS = {
    "plain.pt": lambda s: s,
    "lightning.ckpt": lambda s: {
        "epoch": 3, "state_dict": {f"model.{k}": v for k, v in s.items()} | {"loss.w": torch.ones(2)},
        "hyper_parameters": {"lr": 0.1}, "optimizer_states": [{"state": {}}],
    },
    "training.pth": lambda s: {"model": s, "step": 7},
    "parallel.pt": lambda s: {f"module.{k}": v for k, v in s.items()},
    "half.pt": half,
    "weights.safetensors": lambda s: s,
}  # fmt: skip


def saved(tmp_path, name, state):
    content = FORMS[name](dict(state))
    if name.endswith("safetensors"):
        files = pytest.importorskip("safetensors.torch")
        files.save_file(content, tmp_path / name, metadata={"by": "me"})
    else:
        torch.save(content, tmp_path / name)
    return tmp_path / name, content


def read(path):
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, weights_only=True)


def leaves(content, prefix=""):
    if isinstance(content, dict):
        return {
            p: v for k, part in content.items() for p, v in leaves(part, f"{prefix}/{k}").items()
        }
    return {prefix: content}


@pytest.mark.parametrize("name", FORMS)
def test_there_and_back(tmp_path, name):
    source, other = network(), network()
    nn.init.ones_(source.stem.weight)
    path, before = saved(tmp_path, name, source.state_dict())
    given = match_checkpoint(path, other, "the net")
    given.load_into(other)
    assert torch.equal(other.stem.weight, torch.ones(4, 3, 3, 3))
    with torch.no_grad():
        other.fc.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    target = tmp_path / given.healed_file_name
    given.write_weights(target, other.state_dict())
    assert target.suffix == path.suffix
    after, before = leaves(read(target)), leaves(before)
    assert after.keys() == before.keys()
    bias = next(k for k in after if k.endswith("fc.bias"))
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert (after[key].dtype, after[key].shape) == (value.dtype, value.shape)
            assert key == bias or torch.equal(after[key], value)
        else:
            assert after[key] == value
    assert after[bias].tolist() == [1, 2, 3]
    assert list(tmp_path.glob(".*.part")) == []
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(target, "pt") as file:
            assert file.metadata() == {"by": "me"}


def test_what_does_not_fit_is_named(tmp_path):
    state = network().state_dict()
    wide = state | {"fc.weight": torch.zeros(5, 16), "fc.bias": torch.zeros(5)}
    lacking = {k: v for k, v in state.items() if not k.startswith("norm")}
    for content, message in (
        (wide, r"fc.weight is \(5, 16\) in the file, \(3, 16\) in the network"),
        (
            lacking,
            r"missing in the file: norm.weight, norm.bias, norm.running_mean, norm.running_var",
        ),
        (state | {"extra.weight": torch.zeros(1)}, "unknown to the network: extra.weight"),
        ({"a.b": torch.zeros(1)}, "missing in the file: stem.weight"),
        ({"lr": 0.1}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
    ):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=message) as caught:
            match_checkpoint(tmp_path / "x.pt", network(), "the net")
        assert "\n" not in str(caught.value)


def test_a_missing_counter_is_no_problem(tmp_path):
    state = {k: v for k, v in network().state_dict().items() if not k.endswith("tracked")}
    torch.save(state, tmp_path / "old.pt")
    given = match_checkpoint(tmp_path / "old.pt", network(), "the net")
    given.write_weights(tmp_path / "new.pt", network().state_dict())
    assert read(tmp_path / "new.pt").keys() == state.keys()


def test_nothing_that_runs_code_is_read(tmp_path):
    torch.save(network(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"cannot be read safely.*save model.state_dict\(\)"):
        match_checkpoint(tmp_path / "whole.pt", network(), "the net")
    (tmp_path / "broken.safetensors").write_bytes(b"no such thing")
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match=r"broken.safetensors cannot be read"):
        match_checkpoint(tmp_path / "broken.safetensors", network(), "the net")


def test_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a").startswith("ba7816bf")
