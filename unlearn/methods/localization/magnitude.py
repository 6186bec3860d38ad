"""The largest weights, whatever the forget set: a control of arXiv 2412.02432 (table 4)."""

from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.base import Ranked
from unlearn.models.layers import trainable


class Magnitude(Ranked):
    """Rank by |weight|; data play no part."""

    def scores(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return |weight| of every entry."""
        return {n: p.detach().abs() for n, p in trainable(model).items()}
