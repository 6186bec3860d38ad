"""RFT: reset, then fine-tune on the retain set (the unlearning half of DEL, arXiv 2412.02432).

Re-implemented. With a localization only the masked entries are reset and the whole head is trained;
without one all parameters are reset. Buffers (running statistics) are not reset.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.finetune import Finetune
from unlearn.models.layers import get_trainable_parameters
from unlearn.models.surgery import draw_unrelated_network, reinitialize_network

RESET_MODES = ("fresh", "original_init", "zero", "perturb", "none")


def compute_reset_values(
    model: nn.Module, to: str, *, keep: float, seed: int, original_seed: int
) -> dict[str, Tensor]:
    """Return the values to reset parameters to, by name.

    Args:
        model: The original model.
        to: "fresh": new random weights; "original_init": the original model's initial weights;
            "zero"; "perturb": keep * weight + (1 - keep) * N(0, 1); "none": the current weights.
        keep: Share of the weight in "perturb", in [0, 1].
        seed: Seed of new weights and noise.
        original_seed: Seed of the original model's initial weights.
    """
    old = {name: p.detach() for name, p in model.named_parameters()}
    if to == "zero":
        return {name: torch.zeros_like(p) for name, p in old.items()}
    if to == "perturb":
        generator = torch.Generator().manual_seed(seed)
        noise = {n: torch.randn(p.shape, generator=generator).to(p) for n, p in old.items()}
        return {name: keep * p + (1 - keep) * noise[name] for name, p in old.items()}
    if to == "none":
        return old
    new = (
        draw_unrelated_network(model, seed)
        if to == "fresh"
        else reinitialize_network(model, original_seed)
    )
    return {name: p.detach() for name, p in new.named_parameters()}


class RFT(Finetune):
    """Reset parameters, then train on the retain set."""

    head: ClassVar[str] = "always"

    def __init__(
        self, *, reset_to: str, keep: float, seed: int, original_seed: int, **recipe: Any
    ) -> None:
        """Store the options; see ``compute_reset_values`` and ``UnlearningMethod``.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(**recipe)
        if reset_to not in RESET_MODES:
            raise ValueError(
                f"method.reset_to must be one of {', '.join(RESET_MODES)}, got {reset_to}"
            )
        if not 0 <= keep <= 1:
            raise ValueError(f"method.keep must be in [0, 1], got {keep}")
        self.reset_to = reset_to
        self.options = {"keep": keep, "seed": seed, "original_seed": original_seed}

    @torch.no_grad()
    def prepare(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the model with all parameters reset; a localization restores entries outside the mask."""
        model = super().prepare(model, request)
        new = compute_reset_values(model, self.reset_to, **self.options)  # type: ignore[arg-type]
        for name, parameter in get_trainable_parameters(model).items():
            parameter.copy_(new[name])
        return model
