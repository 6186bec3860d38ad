"""ResNet-50 (He et al., 2016, arXiv 1512.03385), with a stem for small or for large images.

The stride is in a block's 3x3 convolution. Shapes: B batch, c channels, H W image, K classes.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.models.expansion.gates import Gates, apply_gate

BLOCKS = (3, 4, 6, 3)
GROWTH = 4
"""Channels of a block's output in units of its hidden channels."""

STEMS = ("small", "large")


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a skip; the hidden width has no extra channels."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, *, first: bool) -> None:
        """Build the block; the skip of the ``first`` of a stage has a 1x1 convolution."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if first
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, c, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """Stem and four stages; each is one gate group."""

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        width: int,
        stem: str,
        capacity: float = 1.0,
        extra: float = 0.0,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Image channels.
            image_size: Height and width in pixels, at least 8.
            num_classes: K.
            width: Channels of the stem; 64 in the papers.
            stem: "small": 3x3; "large": 7x7 with stride 2, then a max-pool with stride 2.
            capacity: Share of the nominal channels that is kept at gate points, in (0, 1].
            extra: Channels appended at gate points, as a share of the nominal number, >= 0.

        Raises:
            ValueError: If the stem is unknown, the image is too small or capacity leaves no channel.
        """
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"model.stem must be one of {', '.join(STEMS)}, got {stem}")
        if image_size < 8:
            raise ValueError(f"resnet50 needs dataset.image_size of at least 8, got {image_size}")
        if int(capacity * width) < 1:
            raise ValueError(f"capacity {capacity} leaves no channel at width {width}")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "image_size": image_size,
            "num_classes": num_classes,
            "width": width,
            "stem": stem,
            "capacity": capacity,
            "extra": extra,
        }
        nominal = [width, *(width * s * GROWTH for s in (1, 2, 4, 8))]
        c = [int(capacity * n) + round(extra * n) for n in nominal]
        self.group_channels = tuple(c)
        kernel, stride = (3, 1) if stem == "small" else (7, 2)
        self.conv1 = nn.Conv2d(in_channels, c[0], kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(c[0])
        self.maxpool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList()
        for stage, count in enumerate(BLOCKS, start=1):
            hidden, outputs = nominal[stage] // GROWTH, c[stage]
            blocks = [Bottleneck(c[stage - 1], hidden, outputs, 1 if stage == 1 else 2, first=True)]
            blocks += [
                Bottleneck(outputs, hidden, outputs, 1, first=False) for _ in range(count - 1)
            ]
            self.stages.append(nn.ModuleList(blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c[-1], num_classes)

    def forward(self, x: Tensor, gates: Gates | None = None) -> Tensor:
        """Return logits (B, K) for normalised images (B, C, H, W)."""
        x = apply_gate(self.maxpool(F.relu(self.bn1(self.conv1(x)))), gates, 0)
        for group, stage in enumerate(self.stages, start=1):
            for block in stage:  # type: ignore[attr-defined]
                x = apply_gate(block(x), gates, group)
        return self.fc(self.avgpool(x).flatten(1))
