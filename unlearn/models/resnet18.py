"""ResNet-18 (He et al., 2016, arXiv 1512.03385) with the usual stem for small images: 3x3, no max-pool.

Shapes: B batch, c channels, H W image, K classes.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.models.expansion.gates import Gates, apply_gate

STAGES = (1, 2, 4, 8)
"""Channels of the four stages in units of ``width``; each stage is one gate group."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a skip; the hidden width does not grow with extra channels."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        """Build the block; the skip has a 1x1 convolution where shapes change."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, c, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18; stem and first stage share a gate group, since an identity skip joins them."""

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        width: int,
        capacity: float = 1.0,
        extra: float = 0.0,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Image channels.
            image_size: Height and width in pixels, at least 8: three stages halve it.
            num_classes: K.
            width: Channels of the stem; 64 in the papers.
            capacity: Share of the nominal channels that is kept at gate points, in (0, 1].
            extra: Channels appended at gate points, as a share of the nominal number, >= 0.

        Raises:
            ValueError: If the image is too small or capacity leaves no channel.
        """
        super().__init__()
        if image_size < 8:
            raise ValueError(f"resnet18 needs dataset.image_size of at least 8, got {image_size}")
        if int(capacity * width) < 1:
            raise ValueError(f"capacity {capacity} leaves no channel at width {width}")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "image_size": image_size,
            "num_classes": num_classes,
            "width": width,
            "capacity": capacity,
            "extra": extra,
        }
        nominal = [width * s for s in STAGES]
        c = [int(capacity * n) + round(extra * n) for n in nominal]
        self.group_channels = tuple(c)
        self.conv1 = nn.Conv2d(in_channels, c[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c[0])
        self.stages = nn.ModuleList()
        inputs = c[0]
        for stage, (hidden, outputs) in enumerate(zip(nominal, c, strict=True)):
            stride = 1 if stage == 0 else 2
            self.stages.append(
                nn.ModuleList(
                    [
                        BasicBlock(inputs, hidden, outputs, stride),
                        BasicBlock(outputs, hidden, outputs, 1),
                    ]
                )
            )
            inputs = outputs
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor, gates: Gates | None = None) -> Tensor:
        """Return logits (B, K) for normalised images (B, C, H, W)."""
        x = apply_gate(F.relu(self.bn1(self.conv1(x))), gates, 0)
        for group, stage in enumerate(self.stages):
            for block in stage:  # type: ignore[attr-defined]
                x = apply_gate(block(x), gates, group)
        return self.fc(self.avgpool(x).flatten(1))
