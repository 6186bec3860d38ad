"""The largest weights, independent of the forget set: a control of arXiv 2412.02432 (table 4)."""

from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.base import RankedLocalizer
from unlearn.models.layers import get_trainable_parameters


class Magnitude(RankedLocalizer):
    """Rank by |weight|; no data are used."""

    def compute_scores(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return |weight| of every entry."""
        return {n: p.detach().abs() for n, p in get_trainable_parameters(model).items()}
