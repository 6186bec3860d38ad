"""Training confidence: flag samples with a low mean probability of the given label.

Source: Swayamdipta et al., Dataset Cartography, 2020, https://arxiv.org/abs/2009.10795 (section 2;
samples of low confidence are often mislabelled, section 5). Differs: the probabilities are those of
the training forward passes, augmented, not of a pass after each epoch. Shapes: N samples.
"""

from torch import Tensor

from unlearn.scoring.base import Recorder, ScoringInputs
from unlearn.scoring.detection.base import Detector, check_cut, most_suspicious
from unlearn.scoring.memorization.learning_events import LearningEvents


class Confidence(Detector):
    """Flag samples whose given label had the lowest mean probability during training."""

    def __init__(self, *, budget: float | None, threshold: float | None, mode: str) -> None:
        """Store the options.

        Args:
            budget: Share of the training set to flag, in (0, 1); None: use the threshold.
            threshold: Flag samples with a lower mean probability, in (0, 1); None: use the budget.
            mode: When to record, "online" or "eval_pass", as in ``LearningEvents``.

        Raises:
            ValueError: If not exactly one of budget and threshold is given, or the mode is unknown.
        """
        super().__init__()
        check_cut(budget, threshold)
        self.budget = budget
        self.threshold = threshold
        self.watch = LearningEvents(mode=mode)

    def make_recorder(self) -> Recorder:
        """Return the callback that records the probabilities."""
        return self.watch

    def __call__(self, subject: ScoringInputs) -> Tensor:
        """Return the sorted indices of the flagged samples, int64 (n,).

        Raises:
            ValueError: If the training of the model was not recorded.
        """
        if "events/confidence" not in subject.records:
            raise ValueError(
                "discovery=confidence needs records of the original model's training; for a model "
                "trained elsewhere choose another detector, such as discovery=loss"
            )
        confidence = subject.records["events/confidence"]
        limit = None if self.threshold is None else -self.threshold
        return most_suspicious(-confidence, self.budget, limit)
