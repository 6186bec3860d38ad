"""Distances to the retrained model besides accuracy, and attacks with reference models.

Sources: KL and JS of predictions; KLOM (Georgiev et al., Attribute-to-Delete, arXiv 2410.23232); LiRA
(Carlini et al., arXiv 2112.03570); U-LiRA (Hayes et al., arXiv 2403.01218); relearn time (Golatkar et al.,
arXiv 1911.04933). Re-implemented; differs: few models and Gaussians instead of hundreds of models.
Shapes: M models, N samples, n forget samples, K classes.
"""

import math

import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from unlearn.data.task import Task
from unlearn.evaluation.metrics import metric
from unlearn.evaluation.predictions import Predictions, SeedPairs
from unlearn.evaluation.retrain_gap import PARTS, select_outputs

FLOOR = 0.01
"""Minimum variance of a margin, for models that agree exactly."""


def logit_margin(outputs: Tensor, label: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of the label's probability for outputs (..., K), (...)."""
    own = outputs.double().gather(-1, label.expand(outputs.shape[:-1])[..., None])[..., 0]
    others = outputs.double().scatter(-1, label.expand(outputs.shape[:-1])[..., None], -math.inf)
    return own - others.logsumexp(-1)


def compute_divergences(reference: Tensor, outputs: Tensor) -> tuple[float, float]:
    """Return the means of KL(reference, other) and of JS for outputs (N, K), in nats."""
    p, q = reference.double().log_softmax(1), outputs.double().log_softmax(1)
    middle = torch.logaddexp(p, q) - math.log(2)

    def mean_kl(a: Tensor, b: Tensor) -> Tensor:
        return (a.exp() * (a - b)).sum(1).mean()

    return mean_kl(p, q).item(), ((mean_kl(p, middle) + mean_kl(q, middle)) / 2).item()


def gaussian_kl(first: Tensor, second: Tensor) -> Tensor:
    """Return KL between Gaussians fitted to two groups of values (M, N) each, (N,), in nats."""
    (m, v), (other, w) = ((x.mean(0), x.var(0).clamp_min(FLOOR)) for x in (first, second))
    return ((w / v).log() + (v + (m - other) ** 2) / w - 1) / 2


def likelihood_ratio(
    value: Tensor, one: Tensor, two: Tensor, where: Tensor, other: Tensor
) -> Tensor:
    """Return log N(value; one) - log N(value; two), (N,).

    Means are per sample; the two variances are pooled over all samples, as in LiRA
    with fewer than 64 models.

    Args:
        value: Margin of the model under attack, (N,).
        one: Margins of the models of the first kind, (M, N).
        two: Margins of the models of the second kind, (M, N).
        where: Valid entries of ``one``, bool (M, N).
        other: Valid entries of ``two``, bool (M, N).
    """
    parts = []
    for margins, keep in ((one, where), (two, other)):
        counts = keep.sum(0)
        mean = (margins * keep).sum(0) / counts
        spread = (((margins - mean) ** 2) * keep).sum() / (counts - 1).sum()
        variance = spread.clamp_min(FLOOR)
        parts.append(-((value - mean) ** 2) / (2 * variance) - variance.log() / 2)
    return parts[0] - parts[1]


def has_enough_models(inside: Tensor) -> Tensor:
    """Return bool (N,): samples seen by at least two models and unseen by two; from bool (M, N)."""
    seen = inside.sum(0)
    return (seen >= 2) & (len(inside) - seen >= 2)


def separation_metrics(positive: Tensor, negative: Tensor, max_fpr: float) -> tuple[float, float]:
    """Return the area under the ROC curve, and the true positive rate at a false positive rate."""
    truth = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]).numpy()
    score = torch.cat([positive, negative]).numpy()
    fpr, tpr, _ = roc_curve(truth, score)
    return float(roc_auc_score(truth, score)), float(tpr[fpr <= max_fpr].max())


def _require_retrained(retrained: Predictions | None) -> Predictions:
    if retrained is None:
        raise ValueError("no retrained model")
    return retrained


@metric({f"{d}/{p}": "min" for d in ("kl", "js") for p in PARTS}, needs=("forget", "retrained"))
def compute_distances(
    predictions: Predictions, task: Task, retrained: Predictions | None
) -> dict[str, float]:
    """Return KL(retrained, model) and JS of predictions, means over each set, in nats."""
    theirs = select_outputs(_require_retrained(retrained), task)
    out = {}
    for part, (ours, _) in select_outputs(predictions, task).items():
        out[f"kl/{part}"], out[f"js/{part}"] = compute_divergences(theirs[part][0], ours)
    return out


@metric({f"klom/{p}{end}": "min" for p in PARTS for end in ("", "_95")}, needs=("forget", "twins"))
def compute_klom(
    predictions: Predictions, task: Task, retrained: Predictions | None, *, num_models: int = 5
) -> dict[str, float]:
    """Return KL between the margins of retrained and of unlearned models, per set.

    Each sample's margins over ``num_models`` models of each kind are fitted by Gaussians (the paper:
    histograms over a hundred); the mean over samples, and the 95th percentile as ``_95``.
    """
    twins = _require_pairs(predictions)
    keep = {"forget": task.forget_indices().cpu(), "retain": task.retain_indices().cpu()}
    out = {}
    for part in PARTS:
        pair = (twins.retrained, twins.unlearned)
        at = twins.train_size + torch.arange(twins.test_size) if part == "test" else keep[part]
        value = gaussian_kl(*(group[:, at] for group in pair))
        out[f"klom/{part}"] = value.mean().item()
        out[f"klom/{part}_95"] = value.quantile(0.95).item()
    return out


def _require_pairs(predictions: Predictions) -> SeedPairs:
    if predictions.twins is None:
        raise ValueError("no models of other seeds")
    return predictions.twins


@metric({"ulira/auc": "min", "ulira/tpr": "min"}, needs=("forget", "twins"))
def compute_ulira(
    predictions: Predictions,
    task: Task,
    retrained: Predictions | None,
    *,
    num_models: int = 5,
    max_fpr: float = 0.01,
) -> dict[str, float]:
    """Return how well an attack on forget samples separates unlearned from retrained models.

    Each pair of unlearned and retrained model is attacked in turn; per forget sample, Gaussians of the
    margins of all other pairs decide. Differs: all pairs share the run's forget set; the paper draws
    one for each. 0.5 is best; ``tpr`` is over all pairs, at a false positive rate of ``max_fpr``.
    """
    twins, forget = _require_pairs(predictions), task.forget_indices().cpu()
    ours, theirs = twins.unlearned[:, forget], twins.retrained[:, forget]
    every = torch.ones(len(ours) - 1, len(forget), dtype=torch.bool)
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for k in range(len(ours)):
        others = torch.arange(len(ours)) != k
        for value, scores in zip((ours[k], theirs[k]), found, strict=True):
            scores.append(likelihood_ratio(value, ours[others], theirs[others], every, every))
    areas = [separation_metrics(a, b, max_fpr)[0] for a, b in zip(*found, strict=True)]
    tpr = separation_metrics(torch.cat(found[0]), torch.cat(found[1]), max_fpr)[1]
    return {"ulira/auc": sum(areas) / len(areas), "ulira/tpr": tpr}


@metric(
    {f"lira/{name}": "min" for name in ("auc", "tpr", "member", "member_retrained")}
    | {"lira/judged": "max"},
    needs=("forget", "retrained", "shadows"),
)
def compute_lira(
    predictions: Predictions, task: Task, retrained: Predictions | None, *, max_fpr: float = 0.01
) -> dict[str, float]:
    """Return LiRA on the forget set, with the models of the memorization score.

    Per sample, Gaussians of the margins of the models that saw it and of those that did not. The
    members in question are forget samples in the unlearned model, the non-members the same samples
    in the retrained model: ``auc`` 0.5 is best. ``member``: share that looks like a member. Samples
    without two models on each side are excluded; ``judged`` is the fraction of the others.
    """
    shadows, forget = predictions.shadows, task.forget_indices().cpu()
    if shadows is None:
        raise ValueError("no models of parts of the training set")
    keep = has_enough_models(shadows.member_mask)[forget]
    share = keep.double().mean().item()
    forget = forget[keep]
    label, inside = task.train.label.cpu()[forget], shadows.member_mask[:, forget]
    values = shadows.margin[:, forget]
    ratios = [
        likelihood_ratio(logit_margin(p.train[forget], label), values, values, inside, ~inside)
        for p in (predictions, _require_retrained(retrained))
    ]
    auc, tpr = separation_metrics(ratios[0], ratios[1], max_fpr)
    shares = [(ratio > 0).double().mean().item() for ratio in ratios]
    return {
        "lira/judged": share,
        "lira/auc": auc,
        "lira/tpr": tpr,
        "lira/member": shares[0],
        "lira/member_retrained": shares[1],
    }


@metric(
    {"relearn_steps": "max", "relearn_steps_retrained": "max", "relearn_gap": "min"},
    needs=("forget", "relearned"),
)
def compute_relearn_time(
    predictions: Predictions, task: Task, retrained: Predictions | None, **_: object
) -> dict[str, float]:
    """Return the steps on the forget set until its loss is back at the original model's.

    For the unlearned and the retrained model, and their gap relative to the larger one.
    """
    if predictions.relearned is None:
        raise ValueError("no relearn steps")
    ours, theirs = map(float, predictions.relearned)
    gap = abs(ours - theirs) / max(ours, theirs, 1.0)
    return {"relearn_steps": ours, "relearn_steps_retrained": theirs, "relearn_gap": gap}
