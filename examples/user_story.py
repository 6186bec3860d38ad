"""A user's story, start to end: a ResNet-18 trained elsewhere on bad images, healed, taken back.

    python examples/user_story.py CIFAR_FOLDER --out story

CIFAR_FOLDER holds train/<class>/* and test/<class>/*. Of the training images 200 are stamped with a
white square and put into the first class's folder; a list names 60 of them. A plain torch loop
trains torchvision's ResNet-18; the package heals it; plain torch code loads the result and counts.
Then the same without that list: detectors look for the bad images, and the first method heals by
what they flag. Activation clustering costs a pass over the images, cleanlab twice the training.
Last come the mistakes a user makes, each with its line and exit code.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def plant(source: Path, out: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """Copy a part of the images to ``out/photos``, some stamped and in the wrong folder."""
    pick = random.Random(0)
    photos = out / "photos"
    classes = sorted(p.name for p in (source / "train").iterdir())
    for part, count in (("train", options.train), ("test", options.test)):
        for name in classes:
            (photos / part / name).mkdir(parents=True, exist_ok=True)
            files = sorted((source / part / name).iterdir())
            for file in pick.sample(files, count // len(classes)):
                shutil.copy(file, photos / part / name / file.name)
    target, *others = classes
    pool = [f for name in others for f in sorted((photos / "train" / name).iterdir())]
    bad = []
    for file in pick.sample(pool, options.bad):
        image = np.array(Image.open(file).convert("RGB"))
        image[-6:-1, -6:-1] = 255
        name = f"{target}/{file.parent.name}_{file.stem}.jpg"
        Image.fromarray(image).save(photos / "train" / name, quality=95)
        file.unlink()
        bad.append(name)
    pick.shuffle(bad)
    (out / "bad.csv").write_text("file\n" + "\n".join(bad[: options.given]) + "\n")
    return {"listed": bad[: options.given], "hidden": bad[options.given :], "classes": classes}


def read(folder: Path, classes: list[str]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return a folder's images as the user's code reads them: normalised floats, labels, names."""
    files = [f for name in classes for f in sorted((folder / name).iterdir())]
    pixels = np.stack([np.array(Image.open(f).convert("RGB")) for f in files])
    image = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float() / 255
    image = (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    label = torch.tensor([classes.index(f.parent.name) for f in files])
    return image, label, [f"{f.parent.name}/{f.name}" for f in files]


def train(image: torch.Tensor, label: torch.Tensor, epochs: int) -> nn.Module:
    """Train a ResNet-18 with a plain loop."""
    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-len(label) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(label)).split(64):
            batch = image[rows]
            flip = torch.rand(len(rows)) < 0.5
            batch = torch.where(flip[:, None, None, None], batch.flip(-1), batch)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), label[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def share(model: nn.Module, image: torch.Tensor, label: torch.Tensor) -> float:
    """Return the share of images that a model labels so."""
    said = torch.cat([model.eval()(part).argmax(1) for part in image.split(500)])
    return (said == label).float().mean().item()


def run(out: Path, *words: str) -> tuple[int, str, Path | None]:
    """Call the command line; return its exit code, its last line and the run's folder."""
    command = [sys.executable, str(ROOT / "unlearn.py"), *words]
    home = os.environ | {"UNLEARN_HOME": str(out / "home")}
    before = set((out / "home" / "results").glob("r*"))
    done = subprocess.run(command, env=home, capture_output=True, text=True)
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or [""]
    new = sorted(
        set((out / "home" / "results").glob("r*/row-0.json")) - {b / "row-0.json" for b in before}
    )
    return done.returncode, lines[-1], new[0].parent if new else None


def counted(
    model: nn.Module, bad: set[str], true: dict[str, int], names: list[str], image: torch.Tensor
) -> str:
    """Return the share of some bad images that a model labels right; a dash if there are none."""
    rows = [names.index(name) for name in sorted(bad)]
    right = torch.tensor([true[names[row]] for row in rows])
    return f"{share(model, image[rows], right):.3f}" if rows else "-"


def found_by(detector: str, epochs: int) -> list[str]:
    """Return the options for a detector; one that trains models does so as the user did."""
    recipe = [f"pretraining.epochs={epochs}", "pretraining.batch_size=64",
              "pretraining.optimizer.lr=0.05", "forget_set.num_folds=3"]  # fmt: skip
    return [f"discovery={detector}", *(recipe if detector == "cleanlab" else [])]


def healed_in(folder: Path) -> tuple[nn.Module, dict]:
    """Return the healed model, by plain torch, and the row of a run."""
    model = resnet18(num_classes=10)
    model.load_state_dict(torch.load(folder / "healed.pt", weights_only=True))
    return model, json.loads((folder / "row-0.json").read_text())


def settings(method: str) -> list[str]:
    """Return a method with options that were not searched for on these images."""
    return [f"method={method}", f"method_defaults={method}/cifar10_folder_resnet9"]


def healings(out: Path, runs: dict[str, list[str]]) -> Iterator[tuple[str, Path, nn.Module, dict]]:
    """Run each; return its name, folder, healed model and row, or print why there is none."""
    for name, words in runs.items():
        code, line, folder = run(out, *words)
        if folder is None:
            print(f"\n{name}: exit code {code}: {line}")
        else:
            yield name, folder, *healed_in(folder)


def mistakes(out: Path, usual: list[str]) -> None:
    """Print what a user's mistakes cost: one line and an exit code each."""
    (out / "empty.csv").write_text("file\n")
    (out / "unknown.csv").write_text("file\ncat/none.jpg\n")
    (out / "ids.csv").write_text("id\n1\n99999\n")
    torch.save(resnet18(num_classes=7).state_dict(), out / "seven.pt")
    torch.save(resnet18(num_classes=10).state_dict(), out / "untrained.pt")
    torch.save(nn.Linear(2, 2).state_dict(), out / "linear.pt")
    broken = out / "broken"
    if not broken.exists():
        for k, name in enumerate(("a", "b")):
            (broken / name).mkdir(parents=True)
            for i in range(5):
                Image.new("RGB", (32, 32), (99 * k, i, 0)).save(broken / name / f"{i}.png")
        (broken / "a" / "2.png").write_bytes(b"this is no image")
    (out / "flat.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))\n"
    )
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).state_dict(), out / "flat.pt")
    os.environ["PYTHONPATH"] = f"{out}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    flat = ["model=import", "model.path=flat:build", f"checkpoint={out / 'flat.pt'}"]
    for what, words in (
        ("another network's checkpoint", [f"checkpoint={out / 'linear.pt'}"]),
        ("a head of 7 classes", [f"checkpoint={out / 'seven.pt'}"]),
        ("a checkpoint that knows nothing", [f"checkpoint={out / 'untrained.pt'}"]),
        ("an empty list", [f"forget_set.path={out / 'empty.csv'}"]),
        ("a name that does not exist", [f"forget_set.path={out / 'unknown.csv'}"]),
        ("an id that does not exist", [f"forget_set.path={out / 'ids.csv'}"]),
        ("a folder with a broken image", [f"dataset.root={broken}"]),
        ("a model that cannot be expanded", flat),
    ):
        own = [w for w in usual if not (what.startswith("a model") and w.startswith("model"))]
        code, line, _ = run(out, *own, *words, "method=rem")
        print(f"- {what}: exit code {code}\n  {line}", flush=True)


def asked() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--out", type=Path, default=Path("story"))
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--bad", type=int, default=200)
    parser.add_argument("--given", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--methods", nargs="*", default=["rem", "npo"])
    parser.add_argument("--detectors", nargs="*", default=["activation_clustering", "cleanlab"])
    parser.add_argument("more", nargs="*", help="further options of unlearn.py")
    return parser.parse_args()


def main() -> None:
    """Tell the story."""
    options = asked()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    facts = plant(options.cifar, out, options)
    image, label, names = read(out / "photos" / "train", facts["classes"])
    test, test_label, _ = read(out / "photos" / "test", facts["classes"])
    bad = {k: set(facts[k]) for k in ("listed", "hidden")}
    every = bad["listed"] | bad["hidden"]
    true = {n: facts["classes"].index(n.split("/")[1].split("_")[0]) for n in every}
    started = time.perf_counter()
    model = train(image, label, options.epochs)
    torch.save(model.state_dict(), out / "mine.pt")
    print(
        f"trained elsewhere on {len(label)} images in {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    usual = [
        "dataset=imagefolder", f"dataset.root={out / 'photos'}", "model=torchvision",
        "model.name=resnet18", f"checkpoint={out / 'mine.pt'}", "dataset.image_size=32",
        "dataset.mean=[0.4914,0.4822,0.4465]", "dataset.std=[0.2470,0.2435,0.2616]", *options.more,
    ]  # fmt: skip
    by_list = ["forget_set=file", f"forget_set.path={out / 'bad.csv'}"]

    def told(name: str, model: nn.Module, listed: set[str], *cost: float) -> None:
        hit, missed = (
            counted(model, some, true, names, image) for some in (listed, every - listed)
        )
        clean = share(model, test, test_label)
        spent = " ".join(f"{seconds:.0f}" for seconds in cost)
        print(f"| {name} | {hit} | {missed} | {clean:.3f} | {spent} |", flush=True)

    head = "\n| model | listed bad, right | hidden bad, right | clean test | seconds |"
    head += "\n| --- | --: | --: | --: | --: |"
    print(head)
    told("original", model, bad["listed"])
    runs = {method: [*usual, *by_list, *settings(method)] for method in options.methods}
    for method, _, healed, row in healings(out, runs):
        told(method, healed, bad["listed"], row["seconds"])

    method = options.methods[0]
    runs = {
        detector: [*usual, *found_by(detector, options.epochs), *settings(method)]
        for detector in options.detectors
    }
    for detector, folder, healed, row in healings(out, runs):
        flagged = set((folder / "found.csv").read_text().splitlines()[1:])
        hit = flagged & every
        precision, recall = len(hit) / len(flagged), len(hit) / len(every)
        print(
            f"\n{detector} flagged {len(flagged)} of {len(names)} images in "
            f"{row['forget_set/seconds']:.0f} s: precision {precision:.3f}, recall {recall:.3f}{head}"
        )
        told("original", model, hit)
        told(method, healed, hit, row["seconds"])
    print("\nMistakes:")
    mistakes(out, [*usual, *by_list])


if __name__ == "__main__":
    main()
