"""Files that bring code, names that lead elsewhere, secrets in the environment."""

import ast
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unlearn.core.verified_files import write_verified
from unlearn.data.datasets.image_decoding import ImageDecoder
from unlearn.data.datasets.pixel_store import PixelStore

PACKAGE = Path(__file__).resolve().parents[2] / "unlearn"
KEY = "0123456789abcdef" * 2 + "feedbeef"  # of the length of W&B's keys


class Malicious:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_no_file_of_tensors_runs_code(
    nursery: Any, store: Any, small: tuple[str, ...], tmp_path: Path
):
    run = [*small, "method=finetune", "score=confidence", "save_model=false"]
    inside = ["localization=magnitude", "budget=0.5"]
    code, lines = nursery.call(tmp_path, *run, *inside)
    assert code == 0, lines
    original, score = sorted(store(tmp_path).trained(), key=lambda p: p.stat().st_mtime_ns)
    (mask,) = (tmp_path / "outputs" / "results").glob("*/mask.pt")
    owned, files = tmp_path / "owned", [original, score, mask, original.with_name("resume.ckpt")]
    owned.mkdir()
    for number, path in enumerate(files):
        bomb = Malicious(owned / str(number))
        torch.save(
            {"state": bomb, "state_dict": bomb, "records": {}, "notes": {}, "epoch": 0}, path
        )

    code, lines = nursery.call(tmp_path, *run, "localization=saved", f"localization.path={mask}")
    assert code == 2 and len(lines) == 1 and "holds no mask: UnpicklingError" in lines[0], lines
    code, lines = nursery.call(tmp_path, *small, f"checkpoint={original}", command="evaluate")
    assert code == 2 and "cannot be read safely" in lines[-1], lines
    code, lines = nursery.call(tmp_path, *run, *inside, "force=true")
    assert code == 0, lines
    told = [
        line
        for line in lines
        if (line.startswith("training ") and ".pt" in line) or ".ckpt" in line
    ]
    assert [sum(str(path) in line for line in told) for path in files] == [1, 1, 0, 1], lines
    assert not list(owned.iterdir())

    for number, path in enumerate(files):  # such files would have done it
        torch.save({"state": Malicious(owned / str(number))}, path)
        torch.load(path, weights_only=False)
    assert len(list(owned.iterdir())) == len(files)


def test_a_data_cache_runs_no_code(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "key.pixels.index"
    write_verified(path, lambda part: torch.save(Malicious(tmp_path / "owned"), part), "key")
    Image.new("L", (4, 4), 7).save(tmp_path / "one.png")
    images = PixelStore(tmp_path, "key", (tmp_path / "one.png",), ImageDecoder(4, 1, 16))
    images.fill(torch.tensor([0]), verify=True)
    assert (images.read(torch.tensor([0])) == 7).all()
    assert not (tmp_path / "owned").exists() and "broken cache file" in caplog.text


def test_nothing_in_the_package_reads_pickles_or_runs_text():
    forbidden = {"eval", "exec", "joblib.load", "pd.read_pickle", "Unpickler"}
    readers = ("pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal")
    loads = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in readers, path  # so that calls carry the name
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in forbidden, path
            read = called.endswith(("load", "loads", "open", "Unpickler"))
            own = (
                path.name == "distributed.py"
            )  # pipes between the processes of one training, no file
            assert own or not (read and called.startswith(readers)), path
            if called in ("torch.load", "torch.jit.load", "load_from_checkpoint"):
                options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
                loads += 1
            if called == "np.load":
                assert "allow_pickle=True" not in ast.unparse(node), path
    assert loads >= 3


@pytest.mark.parametrize(
    "choice",
    [
        ["method=../../../somewhere/rem"],
        ["dataset=../dataset/synthetic"],
        ["experiment=elsewhere"],
    ],
    ids=str,
)
def test_a_choice_is_a_name_and_no_path(nursery: Any, tmp_path: Path, choice: list[str]):
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere" / "rem.yaml").write_text(
        "_target_: unlearn.methods.original.Original\n"
    )
    group = tmp_path / "conf" / "experiment"
    (tmp_path / "conf" / "method").mkdir(parents=True)
    group.mkdir()
    text = "# @package _global_\ndefaults:\n  - override /method: ../../somewhere/rem\n"
    (group / "elsewhere.yaml").write_text(text)
    code, lines = nursery.call(tmp_path, *choice)
    assert code == 2 and len(lines) == 1, lines
    assert "must be the name of an option, got .." in lines[0] or "unknown" in lines[0]
    assert not (tmp_path / "outputs").exists()


def tree(folder: Path) -> set[str]:
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    return {p for p in found if not p.startswith(("home/outputs", "home/said-"))}


def test_names_of_folders_and_configs_lead_nowhere(nursery: Any, store: Any, tmp_path: Path):
    names = ["..", "...", "$(touch owned)", "<script>alert(1)<", "-rf", "a\nb", "%2e%2e", "~"]
    home, photos = tmp_path / "home", tmp_path / "photos"
    home.mkdir()
    for number, name in enumerate(names[2:]):
        (photos / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (12, 12), (30 * i, 40 * number, 0)).save(photos / name / f"{i}.png")
    before = tree(tmp_path)
    up = "../../../../escaped"
    run = [
        "dataset=imagefolder", f"dataset.root={photos}", "dataset.image_size=12", "corrupted=0.25",
        "model.width=2", "pretraining.epochs=1", "trainer.accelerator=cpu", "method=finetune",
        "corruption=random_label", "localization=magnitude", "budget=0.5", f"names.method={up}",
        f"localization_name={up}", f"names.corruption={tmp_path}/escaped",
    ]  # fmt: skip
    code, lines = nursery.call(home, "--multirun", *run, f"names.dataset={up},{up}2")
    assert code == 0, lines
    assert len(store(home).table()) == 2
    code, lines = nursery.call(home, "figure=none", command="evaluate")
    assert code == 0, lines
    assert tree(tmp_path) == before
    assert "<script>alert" not in (home / "outputs" / "reports" / "report.html").read_text()


def test_no_secret_reaches_logs_rows_or_reports(
    nursery: Any, store: Any, small: tuple[str, ...], tmp_path: Path
):
    (tmp_path / "faulty.py").write_text(
        "from unlearn.methods.original import Original\n"
        "class Online(Original):\n"
        "    def __init__(self, *, api_key, greeting, fails):\n"
        "        self.fails = fails\n"
        "        super().__init__()\n"
        "    def unlearn(self, model, request, fit):\n"
        "        if self.fails:\n"
        "            raise RuntimeError('boom')\n"
        "        return model\n"
    )
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "online.yaml").write_text(
        "_target_: faulty.Online\napi_key: ${oc.env:SOME_TOKEN}\nfails: false\n"
        'greeting: ["I am ${oc.env:DOOR_SECRET}", 5]\n'
    )
    secrets = {"WANDB_API_KEY": KEY, "SOME_TOKEN": "hush-hush-hush", "PASSWORD": "open-sesame"}
    secrets["DOOR_SECRET"] = "swordfish-1"  # part of an option whose name tells nothing
    own = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    sweep = ["--multirun", *small, "method=online", "method.fails=false,true", "logger=wandb"]
    code, lines = nursery.call(tmp_path, *sweep, **secrets, **own)
    assert code == 1 and lines[-1].startswith("1 done, 1 failed"), lines
    reported = nursery.call(tmp_path, "figure=none", command="evaluate", **secrets)
    assert reported[0] == 0, reported[1][-3:]
    assert list((tmp_path / "outputs").rglob("*.wandb"))  # W&B has written
    assert (tmp_path / "outputs" / "reports" / "report.html").exists()
    files = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        leaked = [name for name, value in secrets.items() if value.encode() in content]
        assert not leaked, path
