"""REM's options and their checks (arXiv 2505.17730)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.core.types import Request
from unlearn.methods.components.checkpoint_selection import SELECT_MODES

ORACLE_RECORD = "oracle/corrupted"
"""Record of all corrupted samples; present only with oracle=true, which marks the run."""

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
    """Options of REM.

    Attributes:
        gamma: Accuracy on the forget set's given labels at which removal stops, in [0, 1]; "auto": the
            floor, see ``RemovalStop``.
        force: With "auto": unlearn although nothing exceeds the floor.
        per_sample: With "auto": stop the removal of each sample at its own floor.
        beta: Inverse temperature of the loss difference to the reference, above 0.
        density: Probability that a new channel is active for a sample, in (0, 1].
        ratio: New channels per existing channel (physical form), above 0.
        expand: Add new channels; False: train the network itself (ablation).
        ideal: Apply shared mask and removal term to all corrupted samples (oracle).
        shared_mask: Use one mask for the whole forget set.
        removal_term: Add the removal loss during redirection.
        removal_batch_size: Forget samples drawn in addition to each redirection batch; None: use
            those within the batch.
        removal_weight: Weight of the mean removal loss during redirection: "share", |D_f| / |D|
            (of a batch without a separate forget batch: the fraction of forget samples in it), or
            "mean", 1.
        max_removal_epochs: Maximum number of consecutive removal epochs.
        reference: Mode of the frozen reference network, "masked" or "base".
        redirect_loss: "logsig", "ce" or "dpo".
        redirect_on: "all" data or only the "retain" set (ablation).
        removal_loss: "npo" or "ga", gradient ascent (ablation).
        removal_batch_norm: "train" or "eval", during removal.
        batch_norm: Statistics "shared" by both modes; "recalibrate": recomputed for the base
            network; "separate": updated only by passes of the base network.
        select: Checkpoint to return: the best by "score" or "proxy", or the "last".
        select_original: Whether the original network is a candidate of "score" and "proxy".
        select_samples: Number of retain samples to measure on; None: see ``BestCheckpoint``.
    """

    gamma: float | str
    force: bool = False
    per_sample: bool = False
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
    select_original: bool
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
        if self.density > 1:
            raise ValueError(f"method.density must be in (0, 1], got {self.density}")
        for key in ("beta", "density", "ratio"):
            if getattr(self, key) <= 0:
                raise ValueError(f"method.{key} must be above 0, got {getattr(self, key)}")
        if self.batch_norm == "separate" and not self.expand:
            raise ValueError(
                "method.batch_norm=separate requires method.expand=true: without new channels there "
                "is only one network; choose shared or recalibrate"
            )
        if self.ideal and self.removal_batch_size:
            raise ValueError(
                "method.removal_batch_size must be null with method.ideal=true: separate batches "
                "are drawn from the forget set, which has only the discovered samples"
            )

    def get_removal_indices(self, request: Request) -> Tensor:
        """Return the samples that share a mask and are removed, int64 (n,).

        Raises:
            ValueError: If ``ideal`` is set without oracle=true.
        """
        if not self.ideal:
            return request.forget.index
        if ORACLE_RECORD not in request.records:
            raise ValueError(
                "method.ideal=true requires oracle=true: it uses all corrupted samples"
            )
        every = request.get_all_indices()
        known = request.records[ORACLE_RECORD].nonzero().flatten().to(every.device)
        return known[torch.isin(known, every)]  # without samples of earlier requests
