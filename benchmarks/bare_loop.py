"""A plain training loop of the network that the measurements of large images use, for its memory.

    python -m benchmarks.bare_loop imports   # imports alone
    python -m benchmarks.bare_loop loop      # ten steps of SGD with momentum on random images

Imports only torch: the difference of the two is the network, its gradients and momentum, and one batch
with its activations.
"""

import sys

import torch
import torch._dynamo  # imported by the first optimizer of a process
from torch import nn
from torch.nn import functional as F

SIZE, BATCH, STEPS = 224, 128, 10


def make_network(in_channels: int, num_classes: int, width: int) -> nn.Module:
    """Return a network that is fast at 224 px: the data are measured, not the network."""
    return nn.Sequential(
        nn.AvgPool2d(8),
        nn.Conv2d(in_channels, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes),
    )  # fmt: skip


def train_network(steps: int) -> None:
    """Train on random images, which are read as bytes and normalized in place."""
    network = make_network(3, 10, 16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    for _ in range(steps):
        image = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
        x = image.float().sub_(127.5).div_(64)
        optimizer.zero_grad()
        F.cross_entropy(network(x), torch.randint(0, 10, (BATCH,))).backward()
        optimizer.step()


if __name__ == "__main__" and sys.argv[1] == "loop":
    train_network(STEPS)
