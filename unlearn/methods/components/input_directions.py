"""Directions in the inputs of convolutions and linear maps, and projections of weights onto them.

Used by SAP (arXiv 2403.08618). Shapes: B batch, G groups, d inputs of a weight, M columns.
"""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import ImageSet
from unlearn.models.surgery import eval_mode


def unfold_inputs(layer: nn.Module, value: Tensor) -> Tensor | None:
    """Return the inputs that a layer's weight is multiplied with, (B, positions, G, d).

    None for layers other than linear maps and two-dimensional convolutions with zero padding.
    """
    if isinstance(layer, nn.Linear):
        return value.reshape(len(value), -1, 1, value.shape[-1])
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        return None
    if layer.padding_mode != "zeros":
        return None
    patches = F.unfold(
        value,
        layer.kernel_size,
        layer.dilation,
        layer.padding,
        layer.stride,  # type: ignore[arg-type]
    )  # (B, C k k, L), channels of a group side by side
    return patches.transpose(1, 2).reshape(len(value), patches.shape[2], layer.groups, -1)


def collect_input_grams(
    model: nn.Module, data: ImageSet, *, batch_size: int, columns: int, seed: int
) -> dict[str, Tensor]:
    """Return R R^T of each layer's inputs on a set, float64 (G, d, d), by name of the layer.

    In eval mode, un-augmented, without subtracting a mean; all inputs are those of the given model.

    Args:
        model: Any network.
        data: The images.
        batch_size: Images per forward pass.
        columns: Maximum number of inputs per layer, at least one per image; drawn at random.
        seed: Seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    per_image = max(1, columns // len(data))
    grams: dict[str, Tensor] = {}

    def add_inputs(name: str, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        rows = unfold_inputs(layer, given[0].detach().float())
        if rows is None:
            return
        if rows.shape[1] > per_image:
            keep = torch.randperm(rows.shape[1], generator=generator)[:per_image]
            rows = rows[:, keep.to(rows.device)]
        flat = rows.flatten(0, 1).double()
        gram = torch.einsum("mgi,mgj->gij", flat, flat)
        grams[name] = grams[name] + gram if name in grams else gram

    handles = [
        layer.register_forward_pre_hook(functools.partial(add_inputs, name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    try:
        with eval_mode(model):
            device = next(model.parameters()).device
            for batch in data.batches(batch_size):
                model(batch.image.to(device))
    finally:
        for handle in handles:
            handle.remove()
    return grams


def compute_projection(gram: Tensor, alpha: float) -> Tensor:
    """Return U diag(l) U^T, float64 (G, d, d), with l = alpha r / ((alpha - 1) r + 1).

    Args:
        gram: R R^T, (G, d, d); r are its eigenvalues' shares of their sum.
        alpha: Scale, above 0.
    """
    values, vectors = torch.linalg.eigh(gram)
    share = values.clamp_min(0)
    share = share / share.sum(-1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
    factor = alpha * share / ((alpha - 1) * share + 1)
    return vectors * factor[:, None] @ vectors.transpose(-1, -2)


@torch.no_grad()
def project_weights(model: nn.Module, grams: Mapping[str, Tensor], alpha: float) -> None:
    """Multiply the weights of all layers by their projections, in place; biases stay."""
    for name, gram in grams.items():
        weight = model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        groups, d = gram.shape[:2]
        flat = weight.reshape(groups, -1, d).double()
        moved = flat @ compute_projection(gram, alpha).transpose(-1, -2)
        weight.copy_(moved.reshape(weight.shape).to(weight.dtype))
