"""Holdout retraining: change of predictions after training on other data (arXiv 1910.13427).

Re-implemented; differs by default from the reference of arXiv 2410.16516: the other data are a
validation set, not the test set. Shapes: N samples, K classes, P parameters.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import ImageSet
from unlearn.models.inference import compute_logits
from unlearn.scoring.base import Score, ScoringInputs

HOLDOUTS = ("validation", "test")
FLOOR = 1e-10


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return half of KL(p, q) + KL(q, p) per sample, (N,), for the softmax of outputs (N, K).

    Probabilities are clamped to at least 1e-10 and not renormalised.
    """
    p = first.double().softmax(1).clamp_min(FLOOR)
    q = second.double().softmax(1).clamp_min(FLOOR)
    return ((p - q) * (p.log() - q.log())).sum(1).float() / 2


def finetune_until_converged(
    model: nn.Module,
    data: ImageSet,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    patience: int,
    batch_size: int,
    seed: int,
) -> int:
    """Train ``model`` on ``data`` in place until the summed loss no longer decreases.

    Args:
        model: On its device.
        data: Held-out images; not augmented.
        optimizer: Of the model's parameters.
        epochs: Maximum number of passes.
        patience: Stop after this many consecutive epochs without a new lowest loss.
        batch_size: Images per step.
        seed: Seed of the sample order.

    Returns:
        The number of epochs trained.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    best, since, done = float("inf"), 0, 0
    model.train()
    while done < epochs and since < patience:
        total = torch.zeros((), device=device)
        # Batch norm cannot use a last batch of one sample.
        order = torch.randperm(len(data), generator=generator)
        cuts = max(1, round(len(data) / batch_size))
        for rows in order.tensor_split(cuts):
            batch = next(data.rows(rows.to(data.label.device)).batches(len(rows)))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch.image.to(device)), batch.label.to(device))
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        since = 0 if total.item() < best else since + 1
        best, done = min(best, total.item()), done + 1
    model.eval()
    return done


class HoldoutRetraining(Score):
    """Fine-tune a copy of the original on other data; larger changes mean more memorized."""

    post_hoc: ClassVar[bool] = True

    def __init__(
        self,
        *,
        holdout: str,
        epochs: int,
        patience: int,
        batch_size: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        seed: int,
    ) -> None:
        """Store the options.

        Args:
            holdout: "validation", or "test" as in the reference.
            epochs: Maximum number of passes over the held-out data.
            patience: Stop after this many consecutive epochs without a new lowest loss.
            batch_size: Images per step.
            optimizer: Returns an optimizer for the given parameters.
            seed: Seed of the sample order.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__()
        if holdout not in HOLDOUTS:
            raise ValueError(f"score.holdout must be validation or test, got {holdout}")
        if epochs < 0 or patience < 1:
            raise ValueError(f"score.patience must be at least 1, got {patience}")
        self.holdout = holdout
        self.plan: dict[str, Any] = {"epochs": epochs, "patience": patience}
        self.plan |= {"batch_size": batch_size, "seed": seed}
        self.optimizer = optimizer

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the divergence between the predictions before and after, (N,).

        Raises:
            ValueError: If ``holdout`` is "validation" and there is no validation set.
        """
        held = subject.validation if self.holdout == "validation" else subject.test
        if held is None:
            raise ValueError(
                "score=holdout_retraining needs held-out images: set validation=0.1 or "
                "score.holdout=test"
            )
        model = subject.model()
        before = compute_logits(model, subject.data)
        self.notes["epochs"] = finetune_until_converged(
            model, held, self.optimizer(model.parameters()), **self.plan
        )
        return symmetric_divergence(before, compute_logits(model, subject.data)).cpu()
