"""Per-sample channel gates, the interface of a network to masked channels.

A network has *gate points* in numbered groups; all points of a group share one gate, so a residual
stream stays consistent. Shapes: B batch, c channels at a point, T tokens.
"""

from collections.abc import Sequence

from torch import Tensor

Gates = Sequence[Tensor]
"""One float tensor (B, c) or (c,) per group."""


def apply_gate(x: Tensor, gates: Gates | None, group: int) -> Tensor:
    """Return ``x`` with its channels scaled by the gates of one group.

    Args:
        x: (B, c, H, W) feature maps or (B, T, c) tokens.
        gates: One tensor per group; None returns ``x`` unchanged.
        group: Number of the group.

    Returns:
        A tensor like ``x``; not computed in place, since residual skips need the original.
    """
    if gates is None:
        return x
    scale = gates[group]
    return x * (scale[..., None, None] if x.ndim == 4 else scale.unsqueeze(-2))
