"""ResNet-9 of the corrective-unlearning benchmark (arXiv 2505.17730, 2402.14015).

Re-implemented from the description: CELU(0.075), biases, global max pool, no logit scale.
Shapes: B batch, c channels, H W image, K classes.
"""

from typing import Any

from torch import Tensor, nn

from unlearn.models.expansion.gates import Gates, apply_gate

GROUPS = (1, 2, 4, 2)
"""Channels at the four gate groups, in units of ``width``."""


class ConvBlock(nn.Sequential):
    """Convolution with bias, batch norm and CELU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pad: int = 1
    ) -> None:
        """Build the block; the bias is initialised to zero."""
        conv = nn.Conv2d(inputs, outputs, kernel, stride, pad)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.CELU(alpha=0.075))
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)


class Residual(nn.Module):
    """Two blocks with a skip; the hidden width does not grow with extra channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        """Build the pair of blocks."""
        super().__init__()
        self.first = ConvBlock(channels, hidden)
        self.second = ConvBlock(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + blocks(x), (B, c, H, W)."""
        return x + self.second(self.first(x))


class ResNet9(nn.Module):
    """ResNet-9 with a configurable number of channels at gate points."""

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
            image_size: Height and width in pixels, at least 11 because of the strides.
            num_classes: K.
            width: Channels of the first layer; 64 in the papers.
            capacity: Share of the nominal channels that is kept at gate points, in (0, 1].
            extra: Channels appended at gate points, as a share of the nominal number, >= 0.

        Raises:
            ValueError: If the image is too small or capacity leaves no channel.
        """
        super().__init__()
        if image_size < 11:
            raise ValueError(f"resnet9 needs dataset.image_size of at least 11, got {image_size}")
        nominal = [width * g for g in GROUPS]
        if int(capacity * min(nominal)) < 1:
            raise ValueError(f"capacity {capacity} leaves no channel at width {width}")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "image_size": image_size,
            "num_classes": num_classes,
            "width": width,
            "capacity": capacity,
            "extra": extra,
        }
        c = [int(capacity * n) + round(extra * n) for n in nominal]
        self.group_channels = tuple(c)
        self.conv1 = ConvBlock(in_channels, c[0])
        self.conv2 = ConvBlock(c[0], c[1], kernel=5, stride=2, pad=2)
        self.res1 = Residual(c[1], nominal[1])
        self.conv3 = ConvBlock(c[1], c[2])
        self.res2 = Residual(c[2], nominal[2])
        self.conv4 = ConvBlock(c[2], c[3], pad=0)
        self.halve = nn.MaxPool2d(2)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(c[3], num_classes, bias=False)

    def forward(self, x: Tensor, gates: Gates | None = None) -> Tensor:
        """Return logits (B, K) for normalised images (B, C, H, W)."""
        x = apply_gate(self.conv1(x), gates, 0)
        x = apply_gate(self.conv2(x), gates, 1)
        x = apply_gate(self.res1(x), gates, 1)
        x = apply_gate(self.halve(self.conv3(x)), gates, 2)
        x = apply_gate(self.res2(x), gates, 2)
        x = apply_gate(self.conv4(x), gates, 3)
        return self.fc(self.pool(x).flatten(1))
