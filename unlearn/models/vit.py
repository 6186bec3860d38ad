"""The benchmark's vision transformer for small images (arXiv 2505.17730; patches after arXiv 2112.13492).

Shifted patch tokens, learned attention temperature, no attention of a token to itself.
Differs: masks act on the width, not on the tokens, and layer norm normalises old and extra width
separately, so that the old part computes the same with and without the extra part.
Shapes: B batch, T tokens, d width, h heads, K classes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.models.expansion.gates import Gates, apply_gate


class SplitLayerNorm(nn.LayerNorm):
    """Layer norm that normalises the first ``old`` entries and the rest separately."""

    def __init__(self, width: int, old: int) -> None:
        """Store the split point ``old``."""
        super().__init__(width)
        self.old = old

    def forward(self, input: Tensor) -> Tensor:
        """Return a normalised tensor like ``input``, (..., width)."""
        if input.shape[-1] == self.old:
            return super().forward(input)
        old, extra = input[..., : self.old], input[..., self.old :]
        parts = [F.layer_norm(p, p.shape[-1:], eps=self.eps) for p in (old, extra)]
        return torch.cat(parts, dim=-1) * self.weight + self.bias


def shifted_copies(image: Tensor) -> Tensor:
    """Return the image and its four one-pixel shifts, (B, 5C, H, W), zero padded."""
    padded = F.pad(image, (1, 1, 1, 1))
    h, w = image.shape[-2:]
    shifts = [(1, 0), (1, 2), (0, 1), (2, 1)]
    return torch.cat([image] + [padded[..., y : y + h, x : x + w] for y, x in shifts], dim=1)


class Attention(nn.Module):
    """Self-attention with a learned temperature and a masked diagonal."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        """Build the projections; the inner width does not grow with extra width."""
        super().__init__()
        self.heads = heads
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * math.log(head_width)))
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, d)."""
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        itself = torch.eye(t, dtype=torch.bool, device=x.device)
        y = F.scaled_dot_product_attention(
            q * self.log_scale.exp(), k, v, attn_mask=~itself, scale=1.0
        )
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


class Block(nn.Module):
    """Attention and feed-forward part, each with a norm before it and a skip."""

    def __init__(self, d: int, old: int, heads: int, head_width: int, mlp_width: int) -> None:
        """Build the block for a residual stream of width ``d``, the first ``old`` not extra."""
        super().__init__()
        self.norm1 = SplitLayerNorm(d, old)
        self.attention = Attention(d, heads, head_width)
        self.norm2 = SplitLayerNorm(d, old)
        self.mlp = nn.Sequential(nn.Linear(d, mlp_width), nn.GELU(), nn.Linear(mlp_width, d))

    def forward(self, x: Tensor, gates: Gates | None) -> Tensor:
        """Return (B, T, d); also gated after norms, whose bias would activate masked channels."""
        x = apply_gate(x + self.attention(apply_gate(self.norm1(x), gates, 0)), gates, 0)
        return apply_gate(x + self.mlp(apply_gate(self.norm2(x), gates, 0)), gates, 0)


class ViT(nn.Module):
    """Small-image vision transformer with one gate group, the residual stream."""

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        width: int,
        depth: int,
        heads: int,
        head_width: int,
        mlp_width: int,
        patch_size: int,
        capacity: float = 1.0,
        extra: float = 0.0,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Image channels.
            image_size: Height and width in pixels, a multiple of ``patch_size``.
            num_classes: K.
            width: d, width of the residual stream.
            depth: Number of blocks.
            heads: h.
            head_width: Width of one head.
            mlp_width: Hidden width of the feed-forward part.
            patch_size: Pixels per side of a patch.
            capacity: Share of the nominal width that is kept, in (0, 1].
            extra: Width appended, as a share of the nominal width, >= 0.

        Raises:
            ValueError: If ``image_size`` is no multiple of ``patch_size`` or no channel is left.
        """
        super().__init__()
        if image_size % patch_size:
            raise ValueError(
                f"dataset.image_size must be a multiple of model.patch_size, "
                f"got {image_size} and {patch_size}"
            )
        old = int(capacity * width)
        if old < 1:
            raise ValueError(f"capacity {capacity} leaves no channel at width {width}")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "image_size": image_size,
            "num_classes": num_classes,
            "width": width,
            "depth": depth,
            "heads": heads,
            "head_width": head_width,
            "mlp_width": mlp_width,
            "patch_size": patch_size,
            "capacity": capacity,
            "extra": extra,
        }
        d = old + round(extra * width)
        self.group_channels = (d,)
        self.patch_size = patch_size
        patch = 5 * in_channels * patch_size**2
        self.embed = nn.Sequential(nn.LayerNorm(patch), nn.Linear(patch, d))
        self.cls = nn.Parameter(torch.randn(1, 1, d))
        self.position = nn.Parameter(torch.randn(1, (image_size // patch_size) ** 2 + 1, d))
        self.blocks = nn.ModuleList(
            Block(d, old, heads, head_width, mlp_width) for _ in range(depth)
        )
        self.norm = SplitLayerNorm(d, old)
        self.fc = nn.Linear(d, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def embed_tokens(self, image: Tensor) -> Tensor:
        """Return patch, class and position embeddings, (B, T, d)."""
        p = self.patch_size
        patches = F.unfold(shifted_copies(image), p, stride=p).transpose(1, 2)
        x = self.embed(patches)
        return torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.position

    def forward(self, x: Tensor, gates: Gates | None = None) -> Tensor:
        """Return logits (B, K) for normalised images (B, C, H, W)."""
        x = apply_gate(self.embed_tokens(x), gates, 0)
        for block in self.blocks:
            x = block(x, gates)
        return self.fc(apply_gate(self.norm(x), gates, 0)[:, 0])
