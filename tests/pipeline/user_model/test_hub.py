"""Healed models on the Hub: published, loaded and healed again; a local server answers as it does."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import unlearn
from unlearn.config import composition
from unlearn.config.command_line import parse_command_line
from unlearn.core.errors import ConfigError
from unlearn.pipeline.unlearn_job import unlearn_job
from unlearn.storage import hub
from unlearn.storage.hub_card import write_model_card

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
SPEC = importlib.util.spec_from_file_location(
    "hub_server", Path(__file__).resolve().parents[2] / "storage" / "hub_server.py"
)
assert SPEC is not None and SPEC.loader is not None
hub_server = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hub_server)


@pytest.fixture
def server(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_server.serve_hub() as (address, handler):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield handler


def healed(job, words, *more):
    own = ["method=finetune" if word == "method=npo" else word for word in words]
    made = job(*own, "method.epochs=1", *more)
    unlearn_job(made)
    return made


def test_a_model_is_published_and_loaded(words, job, data, trained, server):
    made = healed(job, words, "hub=ann/leaves", "hub_license=mit", "compliance=true")
    assert set(server.repositories["ann/leaves"]) == {hub.WEIGHTS, hub.CONFIG, hub.README}
    assert server.private == {"ann/leaves": True}
    with pytest.raises(ValueError, match="pass trust=\\['theirs'\\]"):
        unlearn.load("hf://ann/leaves")
    model = unlearn.load("hf://ann/leaves", trust=["theirs"])
    own = unlearn.load(made.run_id, trust=["theirs"])
    assert torch.equal(model(data[0]), own(data[0]))
    assert not torch.equal(model(data[0]), trained(data[0]))  # the healed model, not the original
    assert model.card["run_id"] == made.run_id and model.card["file"] == hub.WEIGHTS

    text = server.repositories["ann/leaves"][hub.README].decode()
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(head)["license"] == "mit"
    assert "machine-unlearning" in yaml.safe_load(head)["tags"]
    assert 'unlearn.load("hf://ann/leaves")' in body and "## Limits" in body
    assert "| clean test accuracy (`test/accuracy`) |" in body
    assert "## Compliance" in body and "AML.M0007" in body and "MANAGE 1.4" in body
    card: Any = model.card
    plain_card = {k: v for k, v in card.items() if k != "compliance"}
    assert "## Compliance" not in write_model_card(plain_card, name="x", license=None)
    report = (made.folder / "report.html").read_text()
    assert "<h2>Compliance</h2>" in report and "AML.T0020" in report
    assert job(*words, "compliance=true").run_id == job(*words).run_id
    assert "<birch>" not in body and "&lt;birch>" in body  # a class name is no HTML

    plain = __import__("theirs").build(3)
    weights = unlearn.heal("hf://ann/leaves", network=plain, retain=data, forget=[1, 2],
                           method="original", device="cpu").model  # fmt: skip
    assert torch.equal(weights(data[0]), own(data[0]))
    from unlearn.cli import _fetch_checkpoint

    path = Path(_fetch_checkpoint("checkpoint=hf://ann/leaves").removeprefix("checkpoint="))
    assert path.read_bytes() == server.repositories["ann/leaves"][hub.WEIGHTS]
    assert job(*words, "hub=ann/other").run_id == job(*words).run_id  # no part of the identity


def test_a_changed_file_or_card_is_refused(words, job, server):
    healed(job, words, "hub=ann/leaves")
    files = server.repositories["ann/leaves"]
    card = json.loads(files[hub.CONFIG])
    evil = card | {"model": {"_target_": "os.mkdir", "path": "OWNED"}}
    files[hub.CONFIG] = json.dumps(evil).encode()
    with pytest.raises(ValueError, match=r"card: model names os\.mkdir"):
        unlearn.load("hf://ann/leaves")
    files[hub.CONFIG] = json.dumps(card | {"file": "../card.json"}).encode()
    with pytest.raises(ValueError, match="file must be a name beside the card"):
        unlearn.load("hf://ann/leaves")
    files[hub.CONFIG] = json.dumps(card | {"sha256": "0" * 64}).encode()
    with pytest.raises(ValueError, match="does not match the SHA-256"):
        unlearn.load("hf://ann/leaves", trust=["theirs"])


def test_a_folder_in_place_of_the_hub(words, job, data, tmp_path):
    made = healed(job, words, f"hub={tmp_path / 'published'}")
    model = unlearn.load(tmp_path / "published", trust=["theirs"])
    own = unlearn.load(made.run_id, trust=["theirs"])
    assert torch.equal(model(data[0]), own(data[0]))


def test_what_is_missing_is_said_in_one_line(server, tmp_path, monkeypatch, words, job):
    with pytest.raises(ValueError, match="there is no such repository, or it is private"):
        unlearn.load("hf://ann/nothing")
    server.repositories["ann/empty"] = {}
    with pytest.raises(ValueError, match=r"the repository holds none of config.json"):
        unlearn.load("hf://ann/empty")
    with pytest.raises(ValueError, match="model must be user/name, got hf://ann"):
        unlearn.load("hf://ann")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"the Hub cannot be reached, and the model is not in"):
        unlearn.load("hf://ann/elsewhere")
    made = job(*words, "method.epochs=1", "hub=ann/leaves")
    with pytest.raises(ValueError, match="hub=ann/leaves: the Hub cannot be reached"):
        unlearn_job(made)
    assert (made.folder / "row-0.json").is_file()  # the run itself is recorded


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hub=leaves"], "hub must be user/name on the Hugging Face Hub"),
        (["hub=ann/leaves", "save_model=false"], "hub=ann/leaves needs save_model=true"),
    ],
)
def test_a_wrong_target_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        composition.check_jobs("unlearn", parse_command_line(words))


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"needs huggingface_hub: pip install 'unlearn-bench\[hub"):
        unlearn.load("hf://ann/leaves")
