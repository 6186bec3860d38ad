"""Retraining from scratch on the retain set, exact unlearning (EU in arXiv 2402.14015). Re-implemented."""

from typing import Any

from torch import nn

from unlearn.core.types import Request
from unlearn.methods.finetune import Finetune
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.surgery import reinitialize_network


class Retrain(Finetune):
    """Train a fresh network of the same architecture by the pre-training recipe, without the forget set."""

    def __init__(self, *, seed: int, **recipe: Any) -> None:
        """Keep the seed of the new weights; see UnlearningMethod for the rest."""
        super().__init__(**recipe)
        self.seed = seed

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return fresh weights."""
        return reinitialize_network(remove_extra_channels(model), self.seed)
