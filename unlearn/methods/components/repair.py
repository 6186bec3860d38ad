"""A short training on the samples that an unlearned network agrees with.

A network that has unlearned the discovered samples no longer gives many undiscovered ones their label:
a retained sample whose label it contradicts is likely to be corrupted. The repair leaves these samples
out. It starts from weights between those of the network and of a new one (shrink and perturb, arXiv
1910.08475): from the network itself, it keeps features such as those of a trigger.

Shapes: N samples by index, B batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearn.core.types import Batch, Forward, ImageSet
from unlearn.methods.components.floors import DRAWS, compute_shifted_probabilities
from unlearn.methods.components.healing_score import measure_class_accuracies
from unlearn.methods.components.losses import sample_losses, share_weighted_mean
from unlearn.models.expansion.expanded import Expanded, remove_extra_channels
from unlearn.models.inference import compute_logits
from unlearn.models.surgery import draw_unrelated_network


@dataclass(frozen=True, kw_only=True)
class RepairRecipe:
    """The training of a repair, by the recipe of pre-training.

    Attributes:
        share: Number of epochs as a fraction of those of pre-training, in (0, 1].
        shrink: Weight of the network in the weights that the training starts from, in (0, 1]; a new
            network has the rest.
        pretraining_epochs: Number of epochs of pre-training, at least 1.
        batch_size: Images per step.
        optimizer: Makes the optimizer from parameters.
        schedule: Learning-rate factor over the steps.
    """

    share: float
    shrink: float
    pretraining_epochs: int
    batch_size: int
    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[[int, int], float]

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: If one is out of range.
        """
        for key in ("share", "shrink"):
            if not 0 < getattr(self, key) <= 1:
                raise ValueError(f"method.repair.{key} must be in (0, 1], got {getattr(self, key)}")

    @property
    def epochs(self) -> int:
        """Number of epochs, at least 1."""
        return max(1, round(self.share * self.pretraining_epochs))


class Repair(nn.Module):
    """A repair in progress: its samples, its loss and its learning rate.

    Attributes:
        steps: Number of steps taken.
    """

    agrees: Tensor

    def __init__(self, recipe: RepairRecipe, size: int) -> None:
        """Store the recipe and no sample yet; ``size`` is N, above every index."""
        super().__init__()
        self.recipe = recipe
        self.steps = self.total = 0
        self.register_buffer("agrees", torch.zeros(size, dtype=torch.bool))

    def start(self, model: nn.Module, retain: ImageSet, *, seed: int) -> int:
        """Select the samples and set the weights of the base network, in place.

        Args:
            model: The unlearned network.
            retain: The retain set.
            seed: Seed of the new weights.

        Returns:
            The number of images measured.
        """
        self.total = self.recipe.epochs * -(-len(retain) // self.recipe.batch_size)
        agreed = find_agreeing_samples(model, retain)
        self.agrees.zero_()
        self.agrees[retain.index[agreed].to(self.agrees.device)] = True
        shrink_and_perturb(model, self.recipe.shrink, seed=seed)
        return (1 + DRAWS) * len(retain)

    def get_rate_factor(self) -> float:
        """Return the learning-rate factor of the next step."""
        return self.recipe.schedule(min(self.steps, self.total - 1), self.total)

    def is_accepted(self, model: nn.Module, retain: ImageSet, given: Sequence[float]) -> bool:
        """Return whether the repaired network replaces the one before the repair.

        It does unless the listed samples got back half of the listed labels that they had lost, or a class
        lost half of the samples that the repair trained on. A smaller rise is no defect: some listed labels
        are right, as those of a backdoor's target class, and removal goes below their share.

        Args:
            model: The repaired network.
            retain: The retain set.
            given: Accuracy on the listed labels of the original, before and after the repair, in [0, 1].
        """
        original, before, after = given
        trained = retain.rows(self.agrees[retain.index.to(self.agrees.device)].cpu())
        classes = trained.label.unique().cpu()
        kept = measure_class_accuracies(model, trained)[classes]
        return after <= (original + before) / 2 and float(kept.min()) >= 0.5

    def compute_loss(self, forward: Forward, batch: Batch) -> Tensor:
        """Return the cross-entropy of the selected samples, summed and divided by B, a scalar."""
        losses = sample_losses(forward(batch.image), batch.label)
        return share_weighted_mean(losses, self.agrees[batch.index])


def find_agreeing_samples(model: nn.Module, data: ImageSet) -> Tensor:
    """Return the positions of samples whose label the network gives them, int64 (n,).

    It must give it to the image as stored, and on average over the image and its shifted copies: the
    image itself may still be memorized.
    """
    label = data.label.cpu()
    stored = compute_logits(model, data).softmax(1).cpu()
    mean = stored + DRAWS * compute_shifted_probabilities(model, data)
    return ((stored.argmax(1) == label) & (mean.argmax(1) == label)).nonzero().flatten()


@torch.no_grad()
def shrink_and_perturb(model: nn.Module, shrink: float, *, seed: int) -> None:
    """Scale the base network's weights by ``shrink`` and add new weights times 1 - ``shrink``, in place.

    Source: arXiv 1910.08475.
    """
    fresh = dict(draw_unrelated_network(remove_extra_channels(model), seed).named_parameters())
    own = model.base_state() if isinstance(model, Expanded) else dict(model.named_parameters())
    for name, weight in fresh.items():
        own[name].mul_(shrink).add_(weight.to(own[name]), alpha=1 - shrink)
