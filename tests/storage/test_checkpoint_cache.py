import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

from unlearn.storage.checkpoint_cache import CheckpointCache, TrainedModel
from unlearn.storage.state_dicts import load_state, save_state

REPOSITORY = Path(__file__).resolve().parents[2]
IDENTITY = {"dataset": {"name": "digits"}, "seeds": {"train": 0}, "corrupted": 0.05}

# Asks the cache for one model; the third argument says what befalls the process on the way.
ASKER = """
import logging, os, signal, sys, time
from pathlib import Path
import torch
from unlearn.storage.checkpoint_cache import CheckpointCache, TrainedModel
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
root, fate = Path(sys.argv[1]), sys.argv[2]
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def train(folder):
    with (root / "trained").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    (folder / "resume.ckpt").write_text("half way")
    if fate == "training":
        die()
    time.sleep(1.0)
    return TrainedModel({"w": torch.arange(1000.0)}, {"loss": torch.zeros(3)}, {"seconds": 1.0})
save = torch.save
def half(content, path):
    save(content, path)
    os.truncate(path, path.stat().st_size // 2)
    die()
if fate == "writing":
    torch.save = half
elif fate == "sealing":
    rename = os.replace
    os.replace = lambda part, path: die() if path.name == "model.pt" else rename(part, path)
print("ready", flush=True)
sys.stdin.readline()
identity = {"dataset": {"name": "digits"}, "seeds": {"train": 0}, "corrupted": 0.05}
model, cached = CheckpointCache(root).get_or_train(identity, train)
print("cached" if cached else "trained", float(model.state["w"].sum()), flush=True)
"""


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def trained(value: float = 1.0) -> TrainedModel:
    return TrainedModel({"w": torch.full((3,), value)}, {"loss": torch.zeros(5)}, {"seconds": 2.0})


def fail(folder: Path) -> TrainedModel:
    raise AssertionError("trained again")


def ask(root: Path, *fates: str) -> list[tuple[int, str]]:
    """Run one process per fate, all asking at once; return code and output of each."""
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASKER, str(root), fate],
            cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe,
        )
        for fate in fates
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    outputs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        text = process.communicate(timeout=60)[0]
        outputs.append((process.returncode, text))
    return outputs


def test_the_key_follows_content_not_order():
    key = CheckpointCache.compute_key
    assert key({"a": 1, "b": {"c": 2, "d": [3]}}) == key({"b": {"d": [3], "c": 2}, "a": 1})
    assert key({"a": 1}) != key({"a": 2})
    assert key({"a": 1}) == "0aa12f3fff7a1ab9"  # caches on disk live longer than this code
    assert len(key(IDENTITY)) == 16
    with pytest.raises(ValueError, match="identity must be plain JSON values"):
        key({"a": Path("x")})


def test_a_model_is_trained_once(tmp_path: Path):
    cache = CheckpointCache(tmp_path / "deep" / "cache")
    assert cache.load_model(IDENTITY) is None and not cache.root.exists()
    folders = []
    first, cached = cache.get_or_train(IDENTITY, lambda f: folders.append(f) or trained())
    assert not cached and folders == [cache.model_folder(IDENTITY)]
    second, cached = cache.get_or_train(IDENTITY, fail)
    assert cached and second.notes == first.notes
    for a, b in ((first.state, second.state), (first.records, second.records)):
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    names = {p.name for p in cache.model_folder(IDENTITY).iterdir()}
    assert names == {"model.pt", "identity.json"}


def test_other_identities_are_other_models(tmp_path: Path):
    cache = CheckpointCache(tmp_path)
    cache.get_or_train(IDENTITY, lambda _: trained(1.0))
    other, cached = cache.get_or_train(IDENTITY | {"corrupted": 0.1}, lambda _: trained(2.0))
    assert not cached and other.state["w"][0] == 2


def test_a_removed_model_is_trained_again(tmp_path: Path):
    cache = CheckpointCache(tmp_path)
    cache.remove_model(IDENTITY)
    cache.get_or_train(IDENTITY, lambda _: trained())
    cache.remove_model(IDENTITY)
    assert cache.load_model(IDENTITY) is None
    assert not cache.get_or_train(IDENTITY, lambda _: trained())[1]


def test_a_failed_training_leaves_nothing_and_frees_the_lock(tmp_path: Path):
    cache = CheckpointCache(tmp_path)
    with pytest.raises(AssertionError, match="trained again"):
        cache.get_or_train(IDENTITY, fail)
    assert cache.load_model(IDENTITY) is None
    assert not cache.get_or_train(IDENTITY, lambda _: trained())[1]


def test_notes_of_numpy_can_be_read_back(tmp_path: Path):
    cache = CheckpointCache(tmp_path)
    model = TrainedModel({"w": torch.ones(1)}, {}, {"seconds": np.float64(1.5)})
    cache.get_or_train(IDENTITY, lambda _: model)
    loaded, cached = cache.get_or_train(IDENTITY, fail)
    assert cached and loaded.notes == {"seconds": 1.5}


def test_what_could_not_be_read_back_is_refused():
    with pytest.raises(ValueError, match="notes must be plain JSON values"):
        TrainedModel({}, {}, {"path": Path("x")})
    state: Any = {"w": [1.0]}
    with pytest.raises(ValueError, match="state must be a dict of tensors by name"):
        TrainedModel(state, {}, {})


def test_two_processes_train_once(tmp_path: Path):
    results = ask(tmp_path, "live", "live")
    assert [code for code, _ in results] == [0, 0]
    waited = "waiting for another process that trains this model"
    assert sorted(text.splitlines() for _, text in results) == [
        ["trained 499500.0"],
        [waited, "cached 499500.0"],
    ]
    assert len((tmp_path / "trained").read_text().splitlines()) == 1


def test_killed_processes_leave_a_usable_cache(tmp_path: Path):
    cache = CheckpointCache(tmp_path)
    results = ask(tmp_path, "training", "writing")  # in either order, each gets its turn
    assert [code for code, _ in results] == [-signal.SIGKILL] * 2
    folder = cache.model_folder(IDENTITY)
    assert (folder / "resume.ckpt").exists() and not (folder / "model.pt").exists()
    (folder / ".model.pt.1.part").write_text("what the second would leave, had it come last")
    assert cache.load_model(IDENTITY) is None
    assert not cache.get_or_train(IDENTITY, lambda _: trained())[1]
    assert not list(folder.glob(".*.part"))
    assert cache.get_or_train(IDENTITY, fail)[1]


def break_file(path: Path, kind: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    broken = {
        "empty": b"",
        "text": b"hello\n",
        "half": content[:middle],
        "headless": content[middle:],
        "flipped": content.replace(b"state", b"st\xffte"),
    }
    if kind in broken:
        path.write_bytes(broken[kind])
    else:
        foreign: dict[str, Any] = {
            "state dict": {"w": torch.ones(2)},
            "list": [torch.ones(2)],
            "number": {"state": 3, "records": {}, "notes": {}},
        }
        torch.save(foreign[kind], path)


@pytest.mark.parametrize(
    "kind", ["empty", "text", "half", "headless", "flipped", "state dict", "list", "number"]
)
def test_a_broken_file_is_named_and_trained_again(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
):
    cache = CheckpointCache(tmp_path)
    cache.get_or_train(IDENTITY, lambda _: trained(1.0))
    path = cache.model_folder(IDENTITY) / "model.pt"
    break_file(path, kind)
    with caplog.at_level(logging.WARNING):
        model, cached = cache.get_or_train(IDENTITY, lambda _: trained(2.0))
    assert not cached and model.state["w"][0] == 2
    assert len(caplog.messages) == 1 and str(path) in caplog.messages[0]
    assert cache.get_or_train(IDENTITY, fail)[1]


def test_a_malicious_file_runs_no_code(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cache = CheckpointCache(tmp_path / "cache")
    cache.get_or_train(IDENTITY, lambda _: trained())
    path = cache.model_folder(IDENTITY) / "model.pt"
    owned = tmp_path / "owned"
    torch.save({"state": Malicious(owned), "records": {}, "notes": {}}, path)
    with pytest.raises(ValueError) as caught:
        load_state(path)
    assert cache.load_model(IDENTITY) is None
    assert not owned.exists()
    for message in (str(caught.value), caplog.messages[0]):
        assert str(path) in message and "mkdir" in message and "\n" not in message
        assert "weights_only" not in message  # no advice to read it unsafely
    torch.load(path, weights_only=False)
    assert owned.exists()  # the file would have done it


def test_a_process_killed_before_the_rename_leaves_nothing_that_counts(tmp_path: Path):
    assert ask(tmp_path, "sealing") == [(-signal.SIGKILL, "")]
    cache = CheckpointCache(tmp_path)
    folder = cache.model_folder(IDENTITY)
    assert [p.name.endswith(".part") for p in folder.glob("*model.pt*")] == [True]
    assert cache.load_model(IDENTITY) is None
    assert not cache.get_or_train(IDENTITY, lambda _: trained())[1]
    assert cache.get_or_train(IDENTITY, fail)[1]
    assert not list(folder.glob(".*.part"))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "prefix", ["", "network.", "model.", "module._orig_mod.", "model.network."]
)
@pytest.mark.parametrize("kind", ["plain", "lightning", "cache"])
def test_every_kind_of_checkpoint_fits_the_network(tmp_path: Path, prefix: str, kind: str):
    state = dict(network().state_dict())
    wrapped = {prefix + k: v for k, v in state.items()}
    path = tmp_path / "some.ckpt"
    if kind == "plain":
        save_state(path, wrapped)
    elif kind == "lightning":
        torch.save({"epoch": 3, "state_dict": wrapped, "optimizer_states": [{"lr": 0.1}]}, path)
    else:
        cache = CheckpointCache(tmp_path)
        cache.get_or_train(IDENTITY, lambda _: TrainedModel(wrapped, {}, {}))
        path = cache.model_folder(IDENTITY) / "model.pt"
    assert same(load_state(path), state)
    network().load_state_dict(load_state(path))


def test_names_with_different_prefixes_stay(tmp_path: Path):
    state = {"model.a": torch.ones(1), "head.b": torch.ones(1)}
    save_state(tmp_path / "a.pt", state)
    assert same(load_state(tmp_path / "a.pt"), state)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no state dict"),
        ([torch.ones(1)], "holds no state dict"),
        ({"state_dict": {"w": 3}}, "holds no state dict"),
        ({0: torch.ones(1)}, "holds no state dict"),
        (b"", "cannot be read safely: EOFError"),
        (b"hello", "cannot be read safely"),
        (None, "does not exist"),
        ("folder", "is no file"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: Any, message: str):
    path = tmp_path / "bad.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError) as caught:
        load_state(path)
    text = str(caught.value)
    assert text.startswith(f"checkpoint {path} {message}") and "\n" not in text


def test_several_are_trained_at_once_save_those_that_are_there_or_busy(tmp_path):
    cache = CheckpointCache(tmp_path)
    who = [{"n": n} for n in range(4)]
    model = TrainedModel({"w": torch.zeros(1)}, {}, {})
    cache.get_or_train(who[0], lambda _: model)
    asked = []

    def train(folders):
        asked.extend(folders)
        yield 3, model
        with FileLock(tmp_path / f"{cache.compute_key(who[3])}.lock").acquire(timeout=0):
            pass  # what has ended is free for others at once
        yield 1, model

    with FileLock(tmp_path / f"{cache.compute_key(who[2])}.lock").acquire(timeout=0):
        assert cache.train_missing(who, train) == [3, 1]
    assert asked == [1, 3]
    assert [cache.load_model(w) is not None for w in who] == [True, True, False, True]
    for one in who:
        with FileLock(tmp_path / f"{cache.compute_key(one)}.lock").acquire(timeout=0):
            pass


def test_a_cached_model_is_read_where_no_lock_can_be_made(tmp_path: Path):
    cache = CheckpointCache(tmp_path)
    made, _ = cache.get_or_train(IDENTITY, lambda folder: trained())
    lock = cache.model_folder(IDENTITY).with_suffix(".lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()  # as in a folder that cannot be written
    found, cached = cache.get_or_train(IDENTITY, lambda folder: pytest.fail("trained again"))
    assert cached and found.state.keys() == made.state.keys()
