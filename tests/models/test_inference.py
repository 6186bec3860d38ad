"""Batches of an evaluation: their size, and what happens when memory runs out."""

import pytest
import torch
from torch import Tensor, nn

from unlearn.core.types import ImageSet
from unlearn.models import inference
from unlearn.models.inference import compute_embedding, compute_logits, get_batch_size


class Greedy(nn.Module):
    """Sums of the images' channels; allocates more than there is for more than ``most`` images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.sizes = most, list[int]()
        self.head = nn.Linear(3, 2, bias=False)
        nn.init.ones_(self.head.weight)

    def forward(self, image: Tensor) -> Tensor:
        torch.empty(2**60 if len(image) > self.most else 1)
        self.sizes.append(len(image))
        return self.head(image.sum((2, 3)))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_limit", inference._BatchLimit())


def images(count: int, side: int) -> ImageSet:
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, side, side)
    label = torch.zeros(count, dtype=torch.long)
    return ImageSet(pixels, label, torch.arange(count), 2, lambda image, _: image.float())


def test_batches_of_small_images_keep_their_size_and_large_ones_are_bounded_in_bytes():
    sizes = [get_batch_size(images(1, side)) for side in (12, 32, 64, 224, 8192)]
    assert sizes == [1024, 1024, 1024, 111, 1]
    inference.limit_batch_bytes(10 * 3 * 32 * 32 * 4)
    assert get_batch_size(images(1, 32)) == 10
    model = Greedy(1024)
    compute_logits(model, images(25, 32))
    assert model.sizes == [10, 10, 5]
    with pytest.raises(ValueError, match=r"trainer\.evaluation_batch_bytes must be at least 1"):
        inference.limit_batch_bytes(0)


@pytest.mark.parametrize("compute", [compute_logits, compute_embedding])
def test_batches_are_halved_when_memory_runs_out_and_this_is_said_once(compute, caplog):
    data, model = images(70, 4), Greedy(20)
    expected = compute(Greedy(1024), data)
    inference.limit_batch_bytes(40 * 3 * 4 * 4 * 4)
    for _ in range(2):
        assert torch.equal(compute(model, data), expected)
    assert model.sizes == 2 * [20, 20, 20, 10]
    (line,) = caplog.messages
    assert line.startswith("evaluation in batches of 20 images instead of 40: memory ran out")


def test_one_image_that_does_not_fit_and_other_errors_are_raised():
    with pytest.raises(RuntimeError, match="allocate memory"):
        compute_logits(Greedy(0), images(3, 4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compute_logits(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), images(3, 4))
