"""Mutated rows, cards, configs, lists and checkpoints: one line each, nothing is run or written.

The default suite tries some; ``-m slow`` tries 2,000.
"""

import copy
import io
import json
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import unlearn
from unlearn.config.command_line import parse_command_line
from unlearn.config.composition import check_jobs
from unlearn.config.registration import config_dir
from unlearn.core.errors import format_user_error
from unlearn.core.files import hash_file
from unlearn.data.forget_sets.sample_list import ImageIndex, parse_list
from unlearn.models.resnet9 import ResNet9
from unlearn.reporting.pages import results_page
from unlearn.reporting.tables import formats, frames, summary
from unlearn.storage.record import RunRecord
from unlearn.storage.results_store import ResultsStore
from unlearn.storage.row_files import read_row
from unlearn.storage.state_dicts import load_state
from unlearn.storage.user_checkpoint import match_checkpoint

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, 10**30, "", "x" * 5000, "../../x", "/etc/passwd", "\x00", "ü\u202e",
    "[/bold]", "<script>", "=1+1", "${oc.env:HOME}", "${nothing}", "nan", "NaN", [], {}, [[]],
    {"_target_": "os.mkdir", "path": "OWNED"}, "os.mkdir", "__import__('os').mkdir('OWNED')",
)  # fmt: skip
RUNS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "shutil.",
    "ctypes",
)


class Watch:
    """Records commands that are run and files that are written outside of a folder."""

    def __init__(self) -> None:
        self.folder, self.seen = "", list[str]()
        sys.addaudithook(self._hook)  # cannot be removed: it is idle without a folder

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        written = event in ("os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link")
        if event == "open" and isinstance(arguments[2], int):
            written = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        where = str(arguments[0]) if arguments else ""
        inside = where.startswith((self.folder, "/dev/", "/proc/"))
        if event.startswith(RUNS) or (written and not inside and not where.isdigit()):
            self.seen.append(f"{event} {where}")


WATCH = Watch()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    WATCH.folder, WATCH.seen = str(tmp_path), []
    yield tmp_path
    WATCH.folder = ""
    assert WATCH.seen == [] and not list(tmp_path.rglob("OWNED"))


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Return a copy with one to three nodes removed, replaced, renamed or nested."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        node = tree
        while isinstance(node, dict) and node:
            key = rng.choice(sorted(node, key=str))
            if isinstance(node[key], dict) and node[key] and rng.random() < 0.7:
                node = node[key]
                continue
            action = rng.randrange(4)
            if action == 0:
                del node[key]
            elif action == 1:
                node[key] = copy.deepcopy(rng.choice(VALUES))
            elif action == 2:
                node[f"{key}{rng.choice(('', ' ', '.x', '/..'))}x"] = node.pop(key)
            else:
                node[key] = {"inside": node[key]}
            break
    return tree


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return the bytes cut off, with flipped bits, or with a part removed, repeated or replaced."""
    data = bytearray(content)
    at = rng.randrange(len(data) + 1)
    action = rng.randrange(5)
    if action == 0:
        del data[at:]
    elif action == 1:
        for _ in range(rng.choice((1, 8, 64))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif action == 2:
        del data[at : at + rng.choice((1, 7, 100))]
    elif action == 3:
        data[at:at] = data[: rng.choice((1, 50))]
    else:
        data[at : at + 4] = rng.choice((b"\xff\xfe", b"\x00" * 9, b"\n\n", b"[" * 3000, b"'\""))
    return bytes(data)


def write_mutation(path: Path, tree: Any, rng: random.Random) -> None:
    """Write a mutated tree as JSON, or the tree's mutated bytes."""
    if rng.random() < 0.6:
        path.write_text(json.dumps(mutate_tree(tree, rng)))
    else:
        path.write_bytes(mutate_bytes(json.dumps(tree).encode(), rng))


def expect_line(call: Callable[[], Any]) -> None:
    """Call it: it returns, or raises an error of ours of one line."""
    try:
        call()
    except Exception as error:
        line = format_user_error(error)
        if line is None:
            raise
        assert "Traceback" not in line


def make_record() -> RunRecord:
    names = {"dataset": "digits", "corruption": "poison", "model": "resnet9"}
    names |= {"pretraining": "standard", "method": "rem"}
    return RunRecord(
        run_id="r3-0123456789ab", step=0, names=names, metrics={"healed": 0.5, "utility": 0.9},
        config={"seed": 0, "discovery": 0.5, "corrupted": 0.1, "dataset": {"mean": [0.5]}},
        status="ok", reason=None, seconds=1.0, peak_bytes=1, versions={"torch": "2"},
        revision=None, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def fuzz_row(folder: Path, rng: random.Random) -> None:
    store = ResultsStore(folder / "results")
    record = make_record()
    store.write(record)
    path = store.run_folder(record.run_id) / "row-0.json"
    write_mutation(path, json.loads(path.read_text()), rng)
    if rng.random() < 0.3:
        store.mirror.write_bytes(mutate_bytes(store.mirror.read_bytes(), rng))
    read_row(path.parent)

    def show() -> None:
        rows = store.load()
        if len(rows):
            frame = frames.prepare_rows(frames.select_current_data(rows)[0])
            formats.to_markdown(summary.summarize_methods(frame))
            results_page.collect_content(store, rows, folder)

    expect_line(show)


def fuzz_card(folder: Path, rng: random.Random) -> None:
    torch.save(
        ResNet9(width=2, in_channels=1, image_size=16, num_classes=3).state_dict(),
        folder / "model.pt",
    )
    node = {"_target_": "unlearn.models.resnet9.ResNet9", "_partial_": True, "width": 2}
    card = {
        "format": 1,
        "run_id": "r",
        "file": "model.pt",
        "sha256": hash_file(folder / "model.pt"),
    }
    card |= {
        "model": node,
        "input": {"in_channels": 1, "image_size": 16},
        "classes": ["a", "b", "c"],
    }
    write_mutation(folder / "card.json", card, rng)
    expect_line(lambda: unlearn.load(folder))


def fuzz_config(folder: Path, rng: random.Random) -> None:
    source = Path(config_dir()) / "method" / f"{rng.choice(('npo', 'finetune', 'ssd'))}.yaml"
    own = folder / "conf" / "method" / "mine.yaml"
    own.parent.mkdir(parents=True)
    if rng.random() < 0.5:
        own.write_bytes(mutate_bytes(source.read_bytes(), rng))
    else:
        own.write_text(yaml.safe_dump(mutate_tree(yaml.safe_load(source.read_text()), rng)))
    words = ["method=mine", "corruption=poison", "discovery=0.5"]
    if rng.random() < 0.5:
        at = rng.randrange(3)
        words[at] = (
            mutate_bytes(words[at].encode(), rng).decode(errors="replace").replace("\x00", "")
        )
    argv = [*words, "--config-dir", str(folder / "conf")]
    expect_line(lambda: check_jobs("unlearn", parse_command_line(argv, "unlearn")))


def fuzz_list(folder: Path, rng: random.Random) -> None:
    names = [f"c{i % 2}/{i}.png" for i in range(12)]
    good = rng.choice(
        ("\n".join(names[:5]), "file,label\n" + "\n".join(f"{n},c1" for n in names), "[1, 2, 3]")
    )
    path = folder / rng.choice(("bad.csv", "bad.txt", "bad.json"))
    path.write_bytes(mutate_bytes(good.encode(), rng))
    expect_line(lambda: parse_list(path, ImageIndex(names, 12), ("c0", "c1")))


def fuzz_checkpoint(folder: Path, rng: random.Random) -> None:
    network = ResNet9(width=2, in_channels=1, image_size=16, num_classes=3)
    state: Any = network.state_dict()
    if rng.random() < 0.5:
        state = {"state_dict": mutate_tree(dict(state), rng), "epoch": rng.choice(VALUES)}
    file = io.BytesIO()
    torch.save(state, file)
    path = folder / "model.pt"
    path.write_bytes(mutate_bytes(file.getvalue(), rng) if rng.random() < 0.8 else file.getvalue())
    expect_line(lambda: load_state(path))
    expect_line(lambda: match_checkpoint(path, network, "the network").load_into(network))


KINDS = {
    "row": fuzz_row, "card": fuzz_card, "config": fuzz_config, "list": fuzz_list,
    "checkpoint": fuzz_checkpoint,
}  # fmt: skip


def run_fuzz(kind: str, seeds: range, folder: Path) -> None:
    wrong = []
    for seed in seeds:
        own = folder / str(seed)
        own.mkdir()
        try:
            KINDS[kind](own, random.Random(f"{kind}{seed}"))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            wrong.append(f"seed {seed}: {told} ({where.filename}:{where.lineno})")
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_some_mutations_cost_a_line(kind: str, watched: Path):
    run_fuzz(kind, range(20), watched)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutations_cost_a_line(kind: str, watched: Path):
    run_fuzz(kind, range(20, 420), watched)
