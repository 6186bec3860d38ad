"""Units of selection: scalars, output channels, attention heads or layers (arXiv 2412.02432).

A unit is a set of entries that are selected together. Units are numbered in canonical order: the
network's order of parameters, then the position within a parameter.
Shapes: U units, C output channels (size of dimension 0), K entries of a channel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

AGGREGATES = ("top_h_mean", "mean", "max", "sum", "l2")


@dataclass(frozen=True)
class Units:
    """Units of a network with their scores.

    Attributes:
        unit_index: Unit of each entry, int64, broadcastable to the parameter's shape; by name.
        score: Float (U,); the highest is selected first.
        size: Entries of each unit, int64 (U,).
        shape: Shape of every parameter of the network, including those without units.
    """

    unit_index: Mapping[str, Tensor]
    score: Tensor
    size: Tensor
    shape: Mapping[str, torch.Size]


def count_averaged_entries(h: Any, channels: int, entries: int) -> int:
    """Return the number of a channel's entries to average, in 1..K.

    Args:
        h: A count; {"frac_of_cout": share of C}; {"frac_of_fan_in": share of K}; "all".
        channels: C.
        entries: K.

    Raises:
        ValueError: If h is none of these.
    """
    if h == "all":
        return entries
    if isinstance(h, int) and not isinstance(h, bool) and h >= 1:
        return min(h, entries)
    base = {"frac_of_cout": channels, "frac_of_fan_in": entries}
    if isinstance(h, Mapping) and len(h) == 1 and next(iter(h)) in base:
        name, share = next(iter(h.items()))
        if 0 < share <= 1:
            return min(max(1, int(share * base[name] + 1e-9)), entries)
    raise ValueError(
        "h must be a whole number of at least 1, all, {frac_of_cout: share} or "
        f"{{frac_of_fan_in: share}} with a share in (0, 1], got {h}"
    )


def aggregate_channel_scores(rows: Tensor, how: str, h: int) -> Tensor:
    """Return one score per channel, (C,), for the scores of its entries, (C, K).

    Args:
        rows: Non-negative scores.
        how: "top_h_mean" averages the h largest; "mean", "max", "sum", "l2".
        h: In 1..K.
    """
    if how == "top_h_mean":
        return rows.topk(h, dim=1).values.mean(1)
    if how == "max":
        return rows.amax(1)
    if how == "l2":
        return rows.square().sum(1).sqrt()
    return rows.sum(1) if how == "sum" else rows.mean(1)


def check_finite(scores: Mapping[str, Tensor]) -> None:
    """Check that all scores are finite.

    Raises:
        ValueError: If a score is not finite.
    """
    for name, score in scores.items():
        if not score.isfinite().all():
            raise ValueError(f"the scores of '{name}' are not finite; check the model for NaN")


def build_scalar_units(scores: Mapping[str, Tensor], shape: Mapping[str, torch.Size]) -> Units:
    """Return units of one entry each."""
    check_finite(scores)
    number, start = {}, 0
    for name, score in scores.items():
        number[name] = torch.arange(start, start + score.numel()).view(score.shape)
        start += score.numel()
    flat = torch.cat([s.flatten() for s in scores.values()]).cpu()
    return Units(number, flat, torch.ones((), dtype=torch.int64).expand(start), shape)


def build_layer_units(
    scores: Mapping[str, Tensor],
    shape: Mapping[str, torch.Size],
    layers: Mapping[str, Sequence[str]],
) -> Units:
    """Return one unit per layer, with the mean score of its entries (ours).

    Args:
        scores: Non-negative score of every entry, by name.
        shape: Shape of every parameter.
        layers: Names of the parameters of each layer; those without scores are ignored.
    """
    check_finite(scores)
    parts = [own for names in layers.values() if (own := [n for n in names if n in scores])]
    sums = [torch.stack([scores[n].double().sum().cpu() for n in own]).sum() for own in parts]
    size = torch.tensor([sum(scores[n].numel() for n in own) for own in parts])
    place = {n: i for i, own in enumerate(parts) for n in own}
    number = {n: torch.full((1,) * scores[n].ndim, place[n]) for n in scores}
    return Units(number, torch.stack(sums) / size, size, shape)


def _assign_row_units(rows: int, heads: int | None) -> Tensor:
    """Return the unit of each row of a weight, int64 (rows,): the row or its attention head."""
    row = torch.arange(rows)
    return row if heads is None else row % (rows // 3) // (rows // 3 // heads)


def build_channel_units(
    scores: Mapping[str, Tensor],
    shape: Mapping[str, torch.Size],
    *,
    how: str,
    h: Any,
    axis: Mapping[str, int],
    tied: Mapping[str, str],
    heads: Mapping[str, int],
) -> Units:
    """Return units of output channels, and of single entries of 0- and 1-dimensional parameters.

    Args:
        scores: Non-negative score of every entry, by name.
        shape: Shape of every parameter.
        how: One of ``AGGREGATES``.
        h: See ``count_averaged_entries``.
        axis: Channel axis by parameter, if it is not the first.
        tied: 1-dimensional parameters whose entry o belongs to channel o of another parameter.
        heads: Number of heads of stacked query-key-value weights; all rows of a head are one unit,
            with their mean score.

    Raises:
        ValueError: If scores are not finite.
    """
    check_finite(scores)
    number: dict[str, Tensor] = {}
    parts, sizes, start = [], [], 0
    for name, score in scores.items():
        if tied.get(name) in number:  # the entry belongs to the unit of its channel
            own = number[tied[name]]
            number[name] = own.flatten()
            part = _find_part(own, parts)
            sizes[part] += torch.bincount(own.flatten() - own.min(), minlength=len(parts[part]))
            continue
        if score.ndim < 2:
            value, size = score.flatten(), 1
            number[name] = torch.arange(start, start + score.numel()).view(score.shape)
        else:
            along = axis.get(name, 0)
            rows = score.movedim(along, 0).flatten(1)
            value, size = (
                aggregate_channel_scores(rows, how, count_averaged_entries(h, *rows.shape)),
                rows.shape[1],
            )
            own = _assign_row_units(len(rows), heads.get(name))
            together = len(rows) // (int(own.max()) + 1)  # rows of a unit
            value = value.new_zeros(int(own.max()) + 1).index_add_(0, own.to(value.device), value)
            value, size = value / together, size * together
            view = [1] * score.ndim
            view[along] = -1
            number[name] = (start + own).view(view)
        parts.append(value.cpu())
        sizes.append(torch.full((len(value),), size))
        start += len(value)
    return Units(number, torch.cat(parts), torch.cat(sizes), shape)


def _find_part(number: Tensor, parts: list[Tensor]) -> int:
    """Return the index of the part that contains these units."""
    first, start = int(number.flatten()[0]), 0
    for i, part in enumerate(parts):
        if first == start:
            return i
        start += len(part)
    raise AssertionError("no part contains these units")


def select_best_units(
    units: Units, count: int, *, fill: str, skip_nonfitting: bool = False
) -> dict[str, Tensor]:
    """Return the mask of the highest-scoring units that fit into ``count`` entries.

    Of units with equal scores, the first in canonical order is selected.

    Args:
        units: All units.
        count: Maximum number of entries to select.
        fill: "whole": stop at the first unit that does not fit; "exact": select the first entries
            of that unit, so that exactly ``count`` are selected.
        skip_nonfitting: With "whole", continue with units that fit.

    Raises:
        ValueError: If no unit fits.
    """
    order = torch.argsort(units.score, descending=True, stable=True)
    running = units.size[order].cumsum(0)
    fits = int((running <= count).sum())
    taken = torch.zeros(len(order), dtype=torch.bool)
    taken[order[:fits]] = True
    left = count - (int(running[fits - 1]) if fits else 0)
    if fill == "whole" and skip_nonfitting:
        for unit in order[fits:].tolist():
            if units.size[unit] <= left:
                taken[unit] = True
                left -= int(units.size[unit])
    part = int(order[fits]) if fill == "exact" and left and fits < len(order) else None
    if not taken.any() and part is None:
        raise ValueError(
            f"the budget of {count} parameters is less than the first unit of "
            f"{int(units.size[order[0]])}; increase the budget, or set localization.fill=exact or "
            "localization.skip_nonfitting=true"
        )
    return _build_entry_masks(units, taken, part, left)


def _build_entry_masks(
    units: Units, taken: Tensor, part: int | None, left: int
) -> dict[str, Tensor]:
    masks = {name: torch.zeros(s, dtype=torch.bool) for name, s in units.shape.items()}
    for name, number in units.unit_index.items():
        masks[name] = taken[number].expand(masks[name].shape).clone()
        if part is not None and left:
            own = (number == part).expand(masks[name].shape).flatten().nonzero().flatten()[:left]
            masks[name].view(-1)[own] = True
            left -= len(own)
    return masks
