"""Retraining from scratch on the retain set, exact unlearning (EU in arXiv 2402.14015). Re-implemented."""

from typing import Any, ClassVar

from torch import nn

from unlearn.core.types import Request
from unlearn.methods.finetune import Finetune
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.surgery import reinitialize_network


class Retrain(Finetune):
    """Train a new network with the pre-training recipe on the retain set."""

    role: ClassVar[str] = "reference"

    def __init__(self, *, seed: int, **recipe: Any) -> None:
        """Store the seed of the new weights; see ``UnlearningMethod`` for the rest."""
        super().__init__(**recipe)
        self.seed = seed

    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return a network of the same architecture with new weights."""
        return reinitialize_network(remove_extra_channels(model), self.seed)
