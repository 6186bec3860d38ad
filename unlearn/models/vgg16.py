"""VGG-16 with batch norm (Simonyan and Zisserman, arXiv 1409.1556) and one linear layer as the head.

The three large linear layers of the paper are for images of 224 pixels.
Shapes: B batch, c channels, H W image, K classes.
"""

from typing import Any

from torch import Tensor, nn

from unlearn.models.expansion.gates import Gates, apply_gate

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Channels in units of ``width``, and number of convolutions, before each max-pool."""


class VGG16(nn.Module):
    """Five stages of 3x3 convolutions; the output of each is a gate group, the rest does not grow."""

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        width: int,
        pool: int,
        capacity: float = 1.0,
        extra: float = 0.0,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Image channels.
            image_size: Height and width in pixels, at least 32: five stages halve it.
            num_classes: K.
            width: Channels of the first stage; 64 in the paper.
            pool: Height and width of the average pooling's output; the features are ``pool``^2 times
                the channels.
            capacity: Share of the nominal channels that is kept at gate points, in (0, 1].
            extra: Channels appended at gate points, as a share of the nominal number, >= 0.

        Raises:
            ValueError: If the image is too small for the pooling, or capacity leaves no channel.
        """
        super().__init__()
        if pool < 1:
            raise ValueError(f"model.pool must be at least 1, got {pool}")
        if image_size < 32 * pool:
            raise ValueError(
                f"vgg16 with model.pool={pool} needs dataset.image_size of at least {32 * pool}, "
                f"got {image_size}"
            )
        if int(capacity * width) < 1:
            raise ValueError(f"capacity {capacity} leaves no channel at width {width}")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "image_size": image_size,
            "num_classes": num_classes,
            "width": width,
            "pool": pool,
            "capacity": capacity,
            "extra": extra,
        }
        nominal = [width * size for size, _ in STAGES]
        c = [int(capacity * n) + round(extra * n) for n in nominal]
        self.group_channels = tuple(c)
        self.stages = nn.ModuleList()
        inputs = in_channels
        for hidden, outputs, (_, count) in zip(nominal, c, STAGES, strict=True):
            layers: list[nn.Module] = []
            for wide in (*[hidden] * (count - 1), outputs):
                layers += [nn.Conv2d(inputs, wide, 3, 1, 1), nn.BatchNorm2d(wide), nn.ReLU()]
                inputs = wide
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.avgpool = nn.AdaptiveAvgPool2d(pool)
        self.fc = nn.Linear(inputs * pool**2, num_classes)

    def forward(self, x: Tensor, gates: Gates | None = None) -> Tensor:
        """Return logits (B, K) for normalised images (B, C, H, W)."""
        for group, stage in enumerate(self.stages):
            x = apply_gate(stage(x), gates, group)
        return self.fc(self.avgpool(x).flatten(1))
