"""The checkpoint cache under two processes, kills, torn files and malice."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from unlearn.checkpoints import CheckpointCache, Trained, load_state, save_state

REPOSITORY = Path(__file__).resolve().parent.parent
WHO = {"model": "x", "seed": 0}

SCRIPT = """
import sys, time
from pathlib import Path
import torch
from unlearn.checkpoints import CheckpointCache, Trained
def train(folder):
    with open(sys.argv[1] + "/trainings", "a") as file:
        file.write("x")
    print("training", flush=True)
    time.sleep(float(sys.argv[2]))
    return Trained({"w": torch.ones(2)}, {}, {"seconds": 1.0})
trained, cached = CheckpointCache(Path(sys.argv[1])).get_or_train({"model": "x", "seed": 0}, train)
print(cached, flush=True)
"""


def start(root, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root), str(seconds)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


def trained(value=1.0):
    return Trained({"w": torch.full((2,), value)}, {"loss": torch.zeros(3)}, {"seconds": 1.0})


def test_a_hit_gives_back_what_was_trained(tmp_path):
    cache = CheckpointCache(tmp_path)
    first, hit = cache.get_or_train(WHO, lambda folder: trained())
    again, second = cache.get_or_train(WHO, lambda folder: trained(2.0))
    assert (hit, second) == (False, True)
    assert torch.equal(first.state["w"], again.state["w"])
    assert again.notes == {"seconds": 1.0}
    assert cache.key(WHO) == cache.key(dict(reversed(WHO.items())))
    assert cache.key(WHO) != cache.key(WHO | {"seed": 1})
    cache.remove(WHO)
    assert cache.get(WHO) is None


def test_a_torn_file_is_trained_again(tmp_path, caplog):
    cache = CheckpointCache(tmp_path)
    cache.get_or_train(WHO, lambda folder: trained())
    path = cache.folder(WHO) / "model.pt"
    path.write_bytes(path.read_bytes()[:100])
    again, hit = cache.get_or_train(WHO, lambda folder: trained(3.0))
    assert not hit
    assert again.state["w"][0] == 3
    assert "broken checkpoint" in caplog.text


class Malice:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_malicious_pickle_executes_nothing(tmp_path):
    cache = CheckpointCache(tmp_path / "cache")
    folder = cache.folder(WHO)
    folder.mkdir(parents=True)
    content = pickle.dumps(Malice(tmp_path / "hacked"))
    (folder / "model.pt").write_bytes(content)
    assert cache.get(WHO) is None
    (tmp_path / "given.pt").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read safely"):
        load_state(tmp_path / "given.pt")
    assert not (tmp_path / "hacked").exists()


def test_two_processes_train_once(tmp_path):
    one, two = start(tmp_path, 1.0), start(tmp_path, 1.0)
    said = [p.communicate(timeout=60)[0].split()[-1] for p in (one, two)]
    assert sorted(said) == ["False", "True"]
    assert (tmp_path / "trainings").read_text() == "x"


def test_a_kill_while_training_frees_the_lock(tmp_path):
    process = start(tmp_path, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    started = time.monotonic()
    _, hit = CheckpointCache(tmp_path).get_or_train(WHO, lambda folder: trained())
    assert not hit
    assert time.monotonic() - started < 5
    assert not list(tmp_path.rglob("*.part"))


def test_state_dicts_of_several_kinds_are_read(tmp_path):
    state = {"fc.weight": torch.ones(2)}
    save_state(tmp_path / "plain.pt", state)
    torch.save({"state": state, "records": {}, "notes": {}}, tmp_path / "ours.pt")
    torch.save({"state_dict": {"model.fc.weight": torch.ones(2)}, "epoch": 1}, tmp_path / "l.ckpt")
    for name in ("plain.pt", "ours.pt", "l.ckpt"):
        assert list(load_state(tmp_path / name)) == ["fc.weight"]
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="no state dict"):
        load_state(tmp_path / "list.pt")
    with pytest.raises(ValueError, match="does not exist"):
        load_state(tmp_path / "absent.pt")
