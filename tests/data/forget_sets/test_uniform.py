"""Uniform forget sets: sizes, classes, repetition, and the manifest."""

import json
from types import SimpleNamespace

import pytest
import torch

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.data.corruption.base import draw_samples
from unlearn.data.forget_sets.base import hash_indices
from unlearn.data.forget_sets.uniform import UniformForgetSet, draw_uniform
from unlearn.data.task import Truth

LABEL = torch.arange(105) % 5


def truth(label=LABEL):
    return Truth(clean_label=label, corrupted=torch.zeros(len(label), dtype=torch.bool))


def chosen(classes=None, seed=0, manifest=None, fraction=0.1, label=LABEL):
    options = SimpleNamespace(forget_fraction=fraction, classes=classes, manifest=manifest)
    return UniformForgetSet(**vars(options))(truth(label), rate=0.5, seed=seed)[0]


def test_a_tenth_rounded_down_sorted_and_repeatable():
    one = chosen()
    assert len(one) == 10 and one.dtype == torch.int64
    assert torch.equal(one, one.unique()) and torch.equal(one, chosen())
    assert not torch.equal(one, chosen(seed=1))
    assert len(set(LABEL[one].tolist())) > 2
    assert len(chosen(fraction=0.3, label=LABEL[:100])) == 30  # not 29: no error of rounding
    sizes = [(50_000, 5_000), (73_257, 7_325), (126_689, 12_668)]  # the published ones
    assert [len(chosen(label=torch.zeros(n).long())) for n, _ in sizes] == [n for _, n in sizes]


def test_non_iid_takes_part_of_the_named_classes():
    found = chosen(classes=[2, 4])
    assert set(LABEL[found].tolist()) == {2, 4} and len(found) == 10
    with pytest.raises(ValueError, match=r"needs 52 of the 42 samples of classes \[2, 4\]"):
        chosen(classes=[2, 4], fraction=0.5)
    with pytest.raises(ValueError, match="needs 105 of the 105"):
        draw_uniform(LABEL, 105, None, 0)
    with pytest.raises(ValueError, match="forget_fraction must be in"):
        chosen(fraction=1)


def test_the_draw_is_not_that_of_a_corruption_with_the_same_seed():
    label = torch.zeros(1000, dtype=torch.int64)
    corrupted = draw_samples(torch.arange(1000), 200, torch.Generator().manual_seed(0))
    both = torch.isin(chosen(label=label), corrupted).sum()
    assert 5 <= both <= 40  # a fifth of the 100 by chance, all of them by the same draw


def test_a_manifest_gives_the_same_set_and_is_checked(tmp_path):
    path = tmp_path / "sets" / "iid.json"
    one = chosen(manifest=str(path))
    assert torch.equal(chosen(manifest=str(path)), one)
    content = json.loads(path.read_text())
    assert content["samples"] == 105 and content["sha256"] == hash_indices(one)
    other = torch.arange(10)  # what was stored is used, not what would be drawn
    path.write_text(json.dumps(content | {"index": other.tolist(), "sha256": hash_indices(other)}))
    assert torch.equal(chosen(manifest=str(path)), other)
    path.write_text(json.dumps(content | {"index": [1, *one.tolist()]}))
    with pytest.raises(ValueError, match="do not match its sha256"):
        chosen(manifest=str(path))
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="made with seed=0, the run has 1"):
        chosen(manifest=str(path), seed=1)


def test_nothing_is_corrupted_unless_asked():
    with enable_composition([config_dir()]):
        for more, expected in (([], "none"), (["corruption=poison"], "poison")):
            made = to_plain_config(
                compose_config("unlearn", ["forget_set=non_iid", *more], [config_dir()])
            )
            assert made["names"]["corruption"] == expected
            assert made["forget_set"]["classes"] == [2, 5]


def test_a_manifest_counts_in_an_identity_only_if_it_was_changed(tmp_path):
    path = tmp_path / "iid.json"
    config = {"forget_set": {"manifest": str(path), "forget_fraction": 0.1}}
    absent = compute_run_id(config)
    chosen(manifest=str(path))
    assert compute_run_id(config) == absent
    moved = tmp_path / "moved.json"
    moved.write_text(path.read_text())
    assert compute_run_id({"forget_set": config["forget_set"] | {"manifest": str(moved)}}) == absent
    other = torch.arange(10)
    changed = {"index": other.tolist(), "sha256": hash_indices(other)}
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert compute_run_id(config) != absent
    for broken in ("", "[1]", "[" * 5000):
        path.write_text(broken)
        assert compute_run_id(config) != absent
        with pytest.raises(ValueError, match=r"forget_set\.manifest: "):
            chosen(manifest=str(path))
