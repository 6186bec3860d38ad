"""Further membership inference on the forget set, besides confidence and correctness.

Sources: entropy, modified entropy (arXiv 2003.10595) and the whole softmax under the classifier of
arXiv 2304.04934; a threshold on the loss (arXiv 1709.01604). Re-implemented.
Shapes: N samples, K classes.
"""

from torch import Tensor
from torch.nn import functional as F

from unlearn.data.task import Task
from unlearn.evaluation.metrics import metric
from unlearn.evaluation.predictions import Predictions
from unlearn.evaluation.reference_distance import separation_metrics
from unlearn.evaluation.retrain_gap import compute_efficacy, select_outputs

FURTHER = ("entropy", "modified_entropy", "probabilities")


def by_loss(
    forget: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], max_fpr: float
) -> tuple[float, float]:
    """Return how well a threshold on the loss separates forget from test samples.

    Args:
        forget: Outputs (N, K) and labels (N,); lower losses indicate membership.
        test: The same for samples outside of the training set.
        max_fpr: Fraction of test samples that may be classified as members.

    Returns:
        The area under the ROC curve (0.5: no separation) and the true positive rate at ``max_fpr``.
    """
    one, two = (
        -F.cross_entropy(z.double(), label, reduction="none") for z, label in (forget, test)
    )
    return separation_metrics(one, two, max_fpr)


@metric(
    {f"mia_{f}{end}": "max" for f in FURTHER for end in ("", "_retrained")}
    | {f"mia_{f}_gap": "min" for f in FURTHER}
    | {f"loss_attack/{v}{end}": "min" for v in ("auc", "tpr") for end in ("", "_retrained")},
    needs=("forget", "retrained"),
)
def compute_attacks(
    predictions: Predictions,
    task: Task,
    retrained: Predictions | None,
    *,
    members: str = "stratified",
    seed: int = 0,
    max_fpr: float = 0.01,
) -> dict[str, float]:
    """Return MIA with further features and the loss threshold attack, for both models."""
    if retrained is None:
        raise ValueError("no retrained model")
    options = {"members": members, "seed": seed}
    out: dict[str, float] = {}
    for feature in FURTHER:
        name = f"mia_{feature}"
        out |= compute_efficacy(predictions, task, retrained, name, feature=feature, **options)
    for end, model in (("", predictions), ("_retrained", retrained)):
        sets = select_outputs(model, task)
        auc, tpr = by_loss(sets["forget"], sets["test"], max_fpr)
        out |= {f"loss_attack/auc{end}": auc, f"loss_attack/tpr{end}": tpr}
    return out
