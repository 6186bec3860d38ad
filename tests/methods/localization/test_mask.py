"""The mask object: counting, set operations, files, budgets."""

import random

import pytest
import torch
from torch import nn

from unlearn.methods.localization.mask import Mask, count_allowed_parameters, fingerprint_model


def made(seed: int = 0) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": (3, 5, 2), "bias": (3,), "scale": ()}
    return Mask({k: torch.rand(s, generator=generator) < 0.5 for k, s in shapes.items()})


def test_a_budget_is_taken_as_written():
    assert [count_allowed_parameters(100, a) for a in (0.29, 0.3, 0.555, 1, 0.009)] == [
        29,
        30,
        55,
        100,
        0,
    ]
    assert int(0.29 * 100) == 28  # what floating point alone would say
    for bad in (0, -0.1, 1.01):
        with pytest.raises(ValueError, match=r"budget must be in \(0, 1\]"):
            count_allowed_parameters(10, bad)


def test_shares_are_exact_globally_and_by_layer():
    weight = torch.tensor([[True, False, True, True], [False, False, False, False]])
    mask = Mask({"weight": weight, "bias": torch.tensor([True, False])})
    assert (mask.count_movable(), mask.count_total(), mask.compute_movable_share()) == (4, 10, 0.4)
    assert mask.count_movable_by_parameter() == {"weight": 3, "bias": 1}
    assert mask.compute_group_shares({"all": ["weight", "bias"], "w": ["weight"]}) == {
        "all": 0.4,
        "w": 0.375,
    }


def test_set_operations_and_overlap():
    one, two = made(1), made(2)
    for name in one:
        assert torch.equal(one.union(two)[name], one[name] | two[name])
        assert torch.equal(one.intersection(two)[name], one[name] & two[name])
        assert torch.equal(one.complement()[name], ~one[name])
    both, either = one.intersection(two).count_movable(), one.union(two).count_movable()
    assert one.compute_jaccard_overlap(two)[""] == both / either and 0 < both < either
    assert one.compute_jaccard_overlap(one) == dict.fromkeys([*one, ""], 1.0)
    with pytest.raises(ValueError, match="different networks"):
        one.union(Mask({"weight": torch.ones(2, dtype=torch.bool)}))


def test_a_file_holds_a_bit_per_entry_and_gives_the_mask_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (100, 1003), "b": (), "c": (7,)}
    masks = {k: torch.rand(s, generator=generator) < 0.3 for k, s in shapes.items()}
    mask = Mask(masks, {"strategy": "SalLoc", "budget": 0.3})
    mask.save(tmp_path / "new" / "mask.pt")
    back = Mask.load(tmp_path / "new" / "mask.pt")
    assert list(back) == list(mask) and back.facts == mask.facts
    assert all(torch.equal(back[n], mask[n]) for n in mask)
    assert (tmp_path / "new" / "mask.pt").stat().st_size < mask.count_total() / 8 + 4000
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no mask"):
        Mask.load(tmp_path / "other.pt")


def test_a_flipped_bit_of_a_mask_is_found(tmp_path):
    path, draw = tmp_path / "mask.pt", random.Random(0)
    mask = Mask({"a": torch.rand(50, 40, generator=torch.Generator().manual_seed(0)) < 0.5})
    mask.save(path)
    content = path.read_bytes()
    for _ in range(12):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"mask\.pt is broken: i"):
            Mask.load(path)
        assert path.read_bytes() == changed  # it may be the user's: not set aside


def test_a_mask_knows_its_network_and_its_budget():
    layer = nn.Linear(2, 3)
    mask = Mask({n: torch.ones(p.shape, dtype=torch.bool) for n, p in layer.named_parameters()})
    mask.check_matches_model(layer)
    with pytest.raises(ValueError, match=r"'bias' is \(3,\) in the mask and \(4,\)"):
        mask.check_matches_model(nn.Linear(2, 4))
    assert mask.require_within_budget(1.0) is mask
    with pytest.raises(ValueError, match=r"at most 4 of 9 parameters .* chose 9"):
        mask.require_within_budget(0.5)
    with pytest.raises(ValueError, match="chose 0"):
        mask.complement().require_within_budget(1.0)
    with pytest.raises(ValueError, match="bool tensors"):
        Mask({"weight": torch.ones(2)})


def test_a_fingerprint_changes_with_a_weight():
    layer = nn.Linear(2, 3)
    before = fingerprint_model(layer)
    assert fingerprint_model(layer) == before
    with torch.no_grad():
        layer.bias[0] += 1
    assert fingerprint_model(layer) != before
