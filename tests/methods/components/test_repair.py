"""The repair after unlearning: which samples it trains on, its weights, when it is accepted."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unlearn.core.types import ImageSet
from unlearn.methods.components.repair import (
    Repair,
    RepairRecipe,
    find_agreeing_samples,
    shrink_and_perturb,
)
from unlearn.models.surgery import draw_unrelated_network
from unlearn.training.schedules import Constant


class Threshold(nn.Module):
    """Predict class 1 for images that are brighter than a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        bright = 10 * (image.mean((1, 2, 3)) - self.threshold)
        return torch.stack([-bright, bright], dim=1)


def make_set(values: list[float], labels: list[int]) -> ImageSet:
    grey = (255 * torch.tensor(values)).round().to(torch.uint8)
    image = grey[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    index = torch.arange(len(labels)) + 3
    return ImageSet(image, torch.tensor(labels), index, num_classes=2, view=view)


def view(image: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return image.float() / 255


def make_repair(size: int = 20) -> Repair:
    recipe = RepairRecipe(
        share=0.2,
        shrink=0.5,
        pretraining_epochs=12,
        batch_size=4,
        optimizer=torch.optim.SGD,
        schedule=Constant(),
    )
    return Repair(recipe, size)


def test_samples_whose_label_the_network_contradicts_are_left_out() -> None:
    data = make_set([0.1, 0.9, 0.2, 0.8], [0, 1, 1, 1])  # the third has a wrong label
    assert find_agreeing_samples(Threshold(0.5), data).tolist() == [0, 1, 3]


def test_their_loss_is_that_of_the_others_divided_by_the_batch() -> None:
    data = make_set([0.1, 0.9, 0.2, 0.8], [0, 1, 1, 1])
    network, repair = Threshold(0.5), make_repair()
    repair.agrees[data.index[[0, 1, 3]]] = True
    batch = next(iter(data.batches(4)))
    each = nn.functional.cross_entropy(network(batch.image), data.label, reduction="none")
    torch.testing.assert_close(repair.compute_loss(network, batch), each[[0, 1, 3]].sum() / 4)


def test_the_recipe_has_a_share_of_the_epochs() -> None:
    assert make_repair().recipe.epochs == 2


def test_weights_move_towards_new_ones() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    network(torch.zeros(2, 1, 8, 8))
    before = {k: v.clone() for k, v in network.named_parameters()}
    fresh = dict(draw_unrelated_network(network, 5).named_parameters())
    shrink_and_perturb(network, 0.75, seed=5)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * fresh[name])


def test_a_repair_that_undoes_the_removal_or_loses_a_class_is_not_accepted() -> None:
    retain = make_set([0.1, 0.9, 0.2, 0.8], [0, 1, 0, 1])
    repair = make_repair()
    repair.agrees[retain.index] = True

    good, lost = Threshold(0.5), Threshold(1.0)  # the second never predicts class 1
    assert repair.is_accepted(good, retain, (0.9, 0.1, 0.5))
    assert not repair.is_accepted(good, retain, (0.9, 0.1, 0.51))
    assert not repair.is_accepted(lost, retain, (0.9, 0.1, 0.1))


@pytest.mark.parametrize("key", ["share", "shrink"])
def test_fractions_are_checked(key: str) -> None:
    with pytest.raises(ValueError, match=rf"method.repair.{key} must be in \(0, 1\], got 0"):
        replace(make_repair().recipe, **{key: 0.0})
