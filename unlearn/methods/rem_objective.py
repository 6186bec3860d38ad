"""REM's objective: redirection of all data and removal of the forget set (arXiv 2505.17730).

base: the network to be deployed; masked: with the new channels that a sample's mask activates.
Shapes: B batch, F additional forget samples, N training samples.
"""

import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward
from unlearn.methods.components.losses import (
    sample_losses,
    scaled_log_sigmoid,
    share_weighted_mean,
)
from unlearn.methods.components.removal_stop import RemovalLimits
from unlearn.methods.rem_options import REMOptions


class REMObjective(nn.Module):
    """REM's losses, with options and frozen reference.

    Sets are tables over all indices, because the cells of a stack differ in set sizes.
    """

    is_forget_sample: Tensor
    is_removal_target: Tensor
    forget_share: Tensor

    def __init__(
        self,
        options: REMOptions,
        reference: nn.Module,
        forget: Tensor,
        known: Tensor,
        share: float,
        limits: RemovalLimits | None = None,
    ) -> None:
        """Store the parts of the losses.

        Args:
            options: REM's options.
            reference: The expanded network before removal, frozen.
            forget: Whether a sample is in the forget set, bool (N,) by index.
            known: Whether removal within a batch applies to it, bool (N,).
            share: Number of forget samples divided by that of all samples, |D_f| / |D|.
            limits: Probabilities of the given labels below which samples are not removed further.
        """
        super().__init__()
        self.limits = limits
        self.options, self.reference = options, reference
        self.register_buffer("is_forget_sample", forget)
        self.register_buffer("is_removal_target", known)
        self.register_buffer("forget_share", torch.tensor(share))

    def compute_removal_step_loss(self, forward: Forward, forget: Batch) -> Tensor:
        """Return the loss of a removal step."""
        return self._compute_removal_losses(
            sample_losses(forward(forget.image), forget.label), forget
        ).mean()

    def compute_joint_batch_loss(self, forward: Forward, batch: Batch) -> Tensor:
        """Return the loss with removal of the batch's forget samples.

        With the weight "share" their losses are summed and divided by the size of the batch, which is
        |D_f| / |D| times their mean in expectation; with "mean" they are averaged.
        """
        if not self.options.removal_term:
            return self._compute_redirection_loss(
                self._compute_masked_losses(forward, batch), batch
            )
        base = sample_losses(forward(batch.image), batch.label)
        full = self._compute_masked_losses(forward, batch) if self.options.expand else base
        found = self.is_removal_target[batch.index]
        removal = share_weighted_mean(self._compute_removal_losses(base, batch), found)
        if self.options.removal_weight == "mean":
            removal = removal * len(found) / found.sum().clamp(min=1)
        return self._compute_redirection_loss(full, batch) + removal

    def compute_separate_batch_loss(self, forward: Forward, batch: Batch, forget: Batch) -> Tensor:
        """Return the loss with removal of a separate batch, run with the new channels off.

        Both batches share one forward pass, unless the base network has separate statistics. The mean
        over the forget batch is multiplied by |D_f| / |D| with the weight "share", by 1 with "mean".
        """
        if self.options.batch_norm == "separate":
            loss = self._compute_redirection_loss(
                self._compute_masked_losses(forward, batch), batch
            )
            loss = loss * batch.weight
            if not self.options.removal_term:
                return loss
            removal = self.compute_removal_step_loss(forward, forget) * forget.weight
            return loss + self._weigh_removal(removal)
        index = torch.cat([batch.index, torch.full_like(forget.index, -1)])
        logits = forward(torch.cat([batch.image, forget.image]), *self._get_mask_arguments(index))
        losses = sample_losses(logits, torch.cat([batch.label, forget.label]))
        full, base = losses.split([len(batch.label), len(forget.label)])
        loss = self._compute_redirection_loss(full, batch) * batch.weight
        if not self.options.removal_term:
            return loss
        removal = self._compute_removal_losses(base, forget).mean() * forget.weight
        return loss + self._weigh_removal(removal)

    def _weigh_removal(self, mean: Tensor) -> Tensor:
        """Return the weighted mean of the removal losses over a separate forget batch, a scalar."""
        return mean * self.forget_share if self.options.removal_weight == "share" else mean

    def _get_mask_arguments(self, index: Tensor, wanted: bool = True) -> tuple[Tensor, ...]:
        return (index,) if wanted and self.options.expand else ()

    def _compute_masked_losses(self, forward: Forward, batch: Batch) -> Tensor:
        return sample_losses(
            forward(batch.image, *self._get_mask_arguments(batch.index)), batch.label
        )

    def _compute_reference_losses(self, batch: Batch, form: str) -> Tensor:
        if form in ("ce", "ga"):  # losses without reference
            return torch.zeros(())
        index = self._get_mask_arguments(batch.index, self.options.reference == "masked")
        with torch.no_grad():
            return sample_losses(self.reference(batch.image, *index).float(), batch.label)

    def _compute_removal_losses(self, base: Tensor, batch: Batch) -> Tensor:
        o = self.options
        losses = removal_losses(
            base, self._compute_reference_losses(batch, o.removal_loss), o.beta, o.removal_loss
        )
        return losses if self.limits is None else losses * self.limits.select(base, batch.index)

    def _compute_redirection_loss(self, full: Tensor, batch: Batch) -> Tensor:
        o, form = self.options, self.options.redirect_loss
        losses = redirect_losses(full, self._compute_reference_losses(batch, form), o.beta, form)
        if o.redirect_on == "all":
            return losses.mean()
        return share_weighted_mean(losses, ~self.is_forget_sample[batch.index])


def redirect_losses(loss: Tensor, reference: Tensor, beta: float, form: str) -> Tensor:
    """Return the redirection objective per sample, (B,); minimising it lowers ``loss``.

    Args:
        loss: Cross-entropy per sample under the full network, (B,).
        reference: The same under the frozen reference, (B,); unused by form "ce".
        beta: Above 0.
        form: "logsig" as the paper's code, "ce" cross-entropy, "dpo" favours high losses.
    """
    if form == "ce":
        return loss
    gap = loss - reference
    return scaled_log_sigmoid(gap, beta) if form == "logsig" else -scaled_log_sigmoid(-gap, beta)


def removal_losses(loss: Tensor, reference: Tensor, beta: float, form: str) -> Tensor:
    """Return the removal objective per sample, (B,); minimising it raises ``loss``.

    Args:
        loss: Cross-entropy per sample under the base network, (B,).
        reference: The same under the frozen reference, (B,); unused by form "ga".
        beta: Above 0.
        form: "npo" (arXiv 2404.05868) or "ga" (gradient ascent).
    """
    return -loss if form == "ga" else -scaled_log_sigmoid(loss - reference, beta)
