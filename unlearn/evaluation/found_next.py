"""The next images to look at: those outside the list whose labels the healed model contradicts most.

Shapes: N training samples, K classes.
"""

from dataclasses import dataclass

from torch import Tensor

from unlearn.data.task import Task


@dataclass(frozen=True)
class Suspect:
    """A training image that is not listed.

    Attributes:
        row: Its row in the training set.
        given: Its label.
        suggested: The healed model's prediction.
        margin: Probability of the prediction minus that of the label, in (0, 1].
    """

    row: int
    given: int
    suggested: int
    margin: float


def find_suspects(after: Tensor, task: Task) -> list[Suspect]:
    """Return the images outside the forget set whose label is not predicted, the surest first.

    Args:
        after: The healed model's logits of the training set, (N, K).
        task: The data.
    """
    rest = task.retain_indices().cpu()
    given = task.train.label.cpu()[rest]
    share = after[rest].softmax(1)
    best = share.max(1)
    margin = best.values - share.gather(1, given[:, None])[:, 0]
    wrong = (best.indices != given).nonzero().flatten()
    order = wrong[margin[wrong].argsort(descending=True, stable=True)]
    return [
        Suspect(int(rest[i]), int(given[i]), int(best.indices[i]), float(margin[i]))
        for i in order.tolist()
    ]
