"""Wide residual network (Zagoruyko and Komodakis, arXiv 1605.07146) in the form of the benchmarks.

That form (arXiv 2402.14015, 2406.09173) differs from the paper's: convolutions have biases, the
stride is in a block's second convolution, a shortcut that changes shape has a batch norm, and there
is none before the pooling. Shapes: B batch, c channels, H W image, K classes.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.models.expansion.gates import Gates, apply_gate

STEM = 16
"""Channels of the stem; the stages have ``width`` times 1, 2 and 4 times as many."""


class WideBlock(nn.Module):
    """Pre-activation block with a skip; the hidden width does not grow with extra channels."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, *, joins: bool) -> None:
        """Build the block; the skip is the identity if ``joins``, else a 1x1 convolution."""
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, hidden, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, stride, 1)
        self.shortcut = (
            nn.Identity()
            if joins
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, c, H / stride, W / stride)."""
        y = self.conv1(F.relu(self.bn1(x)))
        return self.conv2(F.relu(self.bn2(y))) + self.shortcut(x)


class WideResNet(nn.Module):
    """Stem and three stages; each is one gate group."""

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        depth: int,
        width: int,
        capacity: float = 1.0,
        extra: float = 0.0,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Image channels.
            image_size: Height and width in pixels, at least 4: two stages halve it.
            num_classes: K.
            depth: Number of layers as in the paper, 6 n + 4 for n blocks per stage.
            width: Factor on the channels of the stages; 10 in WideResNet-28-10.
            capacity: Share of the nominal channels that is kept at gate points, in (0, 1].
            extra: Channels appended at gate points, as a share of the nominal number, >= 0.

        Raises:
            ValueError: If the depth is not 6 n + 4, the image is too small, or capacity leaves no
                channel.
        """
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"model.depth must be 10, 16, 22, 28, ... (6 n + 4), got {depth}")
        if image_size < 4:
            raise ValueError(
                f"wide_resnet needs dataset.image_size of at least 4, got {image_size}"
            )
        if int(capacity * STEM) < 1:
            raise ValueError(f"capacity {capacity} leaves no channel of {STEM}")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "image_size": image_size,
            "num_classes": num_classes,
            "depth": depth,
            "width": width,
            "capacity": capacity,
            "extra": extra,
        }
        nominal = [STEM, *(STEM * s * width for s in (1, 2, 4))]
        c = [int(capacity * n) + round(extra * n) for n in nominal]
        self.group_channels = tuple(c)
        self.conv1 = nn.Conv2d(in_channels, c[0], 3, 1, 1)
        self.stages = nn.ModuleList()
        for stage in (1, 2, 3):
            hidden, outputs, stride = nominal[stage], c[stage], 1 if stage == 1 else 2
            blocks = [WideBlock(c[stage - 1], hidden, outputs, stride, joins=False)]
            for _ in range((depth - 4) // 6 - 1):
                blocks.append(WideBlock(outputs, hidden, outputs, 1, joins=True))
            self.stages.append(nn.ModuleList(blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c[3], num_classes)

    def forward(self, x: Tensor, gates: Gates | None = None) -> Tensor:
        """Return logits (B, K) for normalised images (B, C, H, W)."""
        x = apply_gate(self.conv1(x), gates, 0)
        for group, stage in enumerate(self.stages, start=1):
            for block in stage:  # type: ignore[attr-defined]
                x = apply_gate(block(x), gates, group)
        return self.fc(self.avgpool(x).flatten(1))
