"""Loss: flag samples with a high loss of the given label in the original model.

Source: the small-loss rule of learning with wrong labels (Han et al., Co-teaching, 2018,
https://arxiv.org/abs/1804.06872). Differs: a ranking of the trained model's final losses, with a
budget. A model that has memorized corrupted samples has a small loss on them. Shapes: N samples.
"""

from torch import Tensor
from torch.nn import functional as F

from unlearn.models.inference import compute_logits
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.base import Detector, check_cut, most_suspicious


class Loss(Detector):
    """Flag the samples with the largest cross-entropy in the original model."""

    def __init__(self, *, budget: float | None, threshold: float | None) -> None:
        """Store the options.

        Args:
            budget: Share of the training set to flag, in (0, 1); None: use the threshold.
            threshold: Flag samples with a larger loss, in nats; None: use the budget.

        Raises:
            ValueError: If not exactly one is given.
        """
        super().__init__()
        check_cut(budget, threshold)
        self.budget = budget
        self.threshold = threshold

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the flagged samples, int64 (n,)."""
        outputs = compute_logits(subject.model(), subject.data)
        loss = F.cross_entropy(outputs, subject.data.label.to(outputs.device), reduction="none")
        return most_suspicious(loss, self.budget, self.threshold)
