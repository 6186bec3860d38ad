"""Estimates of the floor of removal against a network that never saw a corrupted sample.

    python -m benchmarks.floors --seeds 11,12 dataset=digits

One line per corruption and discovery rate, means over the seeds. given: share of the listed samples
to which the original gives the listed label; truth: mean probability of the listed label under the
network trained without corrupted samples; then the estimates: auto, what gamma=auto uses; train, the
same confusions read off unshifted training images; neighbours, labels of the 20 nearest retained
samples in feature space; retrained, a network trained without the list alone (--retrain).
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.tasks import CORRUPTIONS, load_clean_only, load_task, make_job
from unlearn.core.types import Request
from unlearn.methods.components import floors
from unlearn.models.inference import compute_embedding, compute_logits
from unlearn.pipeline.trained_models import train_without
from unlearn.training.engine import silence_lightning

RATES = (0.1, 0.5, 1.0)
NEIGHBOURS = 20


def count_confusions_unshifted(model: nn.Module, request: Request) -> float:
    """Return the estimate of ``gamma=auto`` without shifts."""
    shift, floors.SHIFT = floors.SHIFT, 0.0
    draws, floors.DRAWS = floors.DRAWS, 1
    least, floors.MIN_SHIFT = floors.MIN_SHIFT, 0
    try:
        return floors.estimate_floors(model, request).mean
    finally:
        floors.SHIFT, floors.DRAWS, floors.MIN_SHIFT = shift, draws, least


def count_neighbours(model: nn.Module, request: Request) -> float:
    """Return the share of nearest retained samples that have the listed label."""
    retain = F.normalize(compute_embedding(model, request.retain), dim=1)
    forget = F.normalize(compute_embedding(model, request.forget), dim=1)
    nearest = (forget @ retain.T).topk(NEIGHBOURS, 1).indices
    label = request.retain.label.cpu()[nearest]
    return float((label == request.forget.label.cpu()[:, None]).float().mean())


def measure_given(model: nn.Module, request: Request) -> tuple[float, float]:
    """Return accuracy and mean probability of the listed labels."""
    probability = compute_logits(model, request.forget).softmax(1).cpu()
    given = request.forget.label.cpu()
    own: Tensor = probability.gather(1, given[:, None])
    return float((probability.argmax(1) == given).float().mean()), float(own.mean())


def measure_cell(options: Sequence[str], seed: int, rate: float, retrain: bool) -> dict[str, float]:
    """Return the line of one cell."""
    context, original = load_task(make_job(options, seed=seed, discovery=rate))
    request = context.task.request()
    found = {
        "given": measure_given(original, request)[0],
        "truth": measure_given(load_clean_only(context), request)[1],
        "auto": floors.estimate_floors(original, request).mean,
        "train": count_confusions_unshifted(original, request),
        "neighbours": count_neighbours(original, request),
    }
    if retrain:
        again = train_without(context, context.task.forget_indices(), "without the list")[0]
        found["retrained"] = measure_given(again, request)[1]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floors", description=__doc__)
    parser.add_argument("options", nargs="+", help="the task: dataset=digits ...")
    parser.add_argument("--seeds", default="11,12")
    parser.add_argument("--retrain", action="store_true")
    asked = parser.parse_args()
    heading = False
    with silence_lightning():
        for corruption in CORRUPTIONS:
            for rate in RATES:
                values = defaultdict(list)
                for seed in asked.seeds.split(","):
                    words = [*asked.options, f"corruption={corruption}"]
                    for key, value in measure_cell(words, int(seed), rate, asked.retrain).items():
                        values[key].append(value)
                if not heading:
                    print("| corruption | rate |", " | ".join(values), "|")
                    print("| --- |" + " --: |" * (len(values) + 1))
                    heading = True
                means = [f"{torch.tensor(v).mean():.2f}" for v in values.values()]
                print(f"| {corruption} | {rate} |", " | ".join(means), "|", flush=True)


if __name__ == "__main__":
    main()
