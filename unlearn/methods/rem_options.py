"""REM's options, checked once (arXiv 2505.17730)."""

from dataclasses import dataclass

from torch import Tensor

from unlearn.core.types import Request
from unlearn.methods.components.checkpoint_selection import SELECT_MODES

ORACLE_RECORD = "oracle/corrupted"
"""Record that names all corrupted samples; there only with oracle=true, which marks the run."""

CHOICES = {
    "reference": ("masked", "base"),
    "redirect_loss": ("logsig", "ce", "dpo"),
    "redirect_on": ("all", "retain"),
    "removal_loss": ("npo", "ga"),
    "removal_weight": ("share", "mean"),
    "removal_batch_norm": ("train", "eval"),
    "batch_norm": ("shared", "recalibrate", "separate"),
    "select": SELECT_MODES,
}


@dataclass(frozen=True, kw_only=True)
class REMOptions:
    """What REM lets one choose.

    Attributes:
        gamma: Accuracy on the forget set's given labels at which removal stops, in [0, 1].
        beta: Strength of the tie to the reference, above 0.
        density: Chance that a new channel is on for a sample, in (0, 1].
        ratio: New channels per old one (physical form), above 0.
        expand: Use new channels; without them all happens in the network itself (ablation).
        ideal: Shared mask and removal term act on all corrupted samples: an oracle.
        shared_mask: The forget set shares one mask.
        removal_term: Keep removing during redirection.
        removal_batch_size: Forget samples drawn beside each redirection batch; None: those within it.
        removal_weight: Of samples removed within a batch: their "share" of it, or "mean", weight 1.
        max_removal_epochs: Most removal epochs in a row.
        reference: Mode of the frozen reference network, "masked" or "base".
        redirect_loss: "logsig", "ce" or "dpo".
        redirect_on: "all" data, or the "retain" set alone (ablation).
        removal_loss: "npo" or "ga", plain ascent (ablation).
        removal_batch_norm: "train" or "eval", while removing.
        batch_norm: "shared" statistics of both modes, "recalibrate" those of the base, or "separate"
            ones, kept by base passes alone.
        select: "proxy" or "last".
        select_samples: Retain samples that the proxy is measured on; None: all.
    """

    gamma: float
    beta: float
    density: float
    ratio: float
    expand: bool
    ideal: bool
    shared_mask: bool
    removal_term: bool
    removal_batch_size: int | None
    removal_weight: str
    max_removal_epochs: int
    reference: str
    redirect_loss: str
    redirect_on: str
    removal_loss: str
    removal_batch_norm: str
    batch_norm: str
    select: str
    select_samples: int | None

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            ValueError: If one is out of range.
        """
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"method.{key} must be one of {', '.join(allowed)}, got {getattr(self, key)}"
                )
        for key, low, high in (("gamma", 0, 1), ("density", 0, 1)):
            if not low <= getattr(self, key) <= high:
                raise ValueError(f"method.{key} must be in [0, 1], got {getattr(self, key)}")
        for key in ("beta", "density", "ratio"):
            if getattr(self, key) <= 0:
                raise ValueError(f"method.{key} must be above 0, got {getattr(self, key)}")
        if self.batch_norm == "separate" and not self.expand:
            raise ValueError(
                "method.batch_norm=separate needs method.expand=true: without new channels there is "
                "one network; choose shared or recalibrate"
            )
        if self.ideal and self.removal_batch_size:
            raise ValueError(
                "method.removal_batch_size must be null with method.ideal: the forget set that "
                "could be drawn from holds the discovered samples alone"
            )

    def get_removal_indices(self, request: Request) -> Tensor:
        """Return the samples that share a mask and are removed, int64 (n,): the forget set.

        Raises:
            ValueError: If the oracle is wanted but absent.
        """
        if not self.ideal:
            return request.forget.index
        if ORACLE_RECORD not in request.records:
            raise ValueError("method.ideal needs oracle=true: it is told all corrupted samples")
        return request.records[ORACLE_RECORD].nonzero().flatten().to(request.forget.index.device)
