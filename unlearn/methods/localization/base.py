"""Interface of localization strategies, and the base of those that rank parameters by a score.

A strategy is a criterion (a score per entry), a granularity (scalars or channels) and a selection
that meets the budget (arXiv 2412.02432).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.mask import count_allowed_parameters
from unlearn.methods.localization.parameter_units import (
    AGGREGATES,
    Units,
    build_channel_units,
    build_layer_units,
    build_scalar_units,
    count_averaged_entries,
    select_best_units,
)
from unlearn.models.layer_groups import example_images, group_by_layer, list_head_parameters
from unlearn.models.layers import COUNTED, get_trainable_parameters


class Localizer(Protocol):
    """Select the parameters to train.

    Attributes:
        needs_budget: Whether the caller must set the budget; else the strategy determines it.
    """

    @property
    def needs_budget(self) -> bool:
        """Return whether the caller must set the budget."""
        ...

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return the mask, bool by parameter name; ``model`` is not modified.

        Args:
            model: The original model.
            request: Forget and retain set.
            budget: Share of all parameters, in (0, 1].
        """
        ...


def check_option(key: str, value: object, options: Sequence[object]) -> None:
    """Check that an option has an allowed value.

    Raises:
        ValueError: If the value is not one of the options.
    """
    if value not in options:
        names = ", ".join(str(o) for o in options)
        raise ValueError(f"localization.{key} must be one of {names}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Options that turn scores into a mask.

    Attributes:
        granularity: "parameter"; "channel"; "head": channels, with queries, keys and values of an
            attention head as one unit; "layer".
        aggregate: Reduction of a channel's scores; see ``aggregate_channel_scores``.
        h: Number of entries averaged; None: a tenth of the number of channels in a network with
            convolutions, all in others; see ``count_averaged_entries``.
        fill: "exact", or "whole" to select only whole units.
        skip_nonfitting: With "whole", skip units that do not fit instead of stopping.
        exclude: Name patterns that are never selected; "norm" and "head" exclude these layers.
        count_base: The budget is a share of "all" parameters or of the "eligible" ones.
        tie_1d: Select biases and norms together with their channel.
        unit_axis: Channel axis by name pattern; None: the first axis.
    """

    granularity: str
    aggregate: str
    h: Any
    fill: str
    skip_nonfitting: bool
    exclude: Sequence[str]
    count_base: str
    tie_1d: bool
    unit_axis: Mapping[str, int] | None

    def __post_init__(self) -> None:
        """Check the options."""
        check_option("granularity", self.granularity, ("parameter", "channel", "head", "layer"))
        check_option("aggregate", self.aggregate, AGGREGATES)
        check_option("fill", self.fill, ("exact", "whole"))
        check_option("count_base", self.count_base, ("all", "eligible"))
        if self.h is not None:
            count_averaged_entries(self.h, 1, 1)

    def list_eligible_names(self, model: nn.Module, request: Request) -> list[str]:
        """Return the names of the parameters that may be selected.

        Raises:
            ValueError: If none are left.
        """
        out: set[str] = set()
        if "norm" in self.exclude:
            for path, module in model.named_modules():
                if "norm" in type(module).__name__.lower():
                    out |= {f"{path}.{n}" for n, _ in module.named_parameters(recurse=False)}
        if "head" in self.exclude:
            out |= set(list_head_parameters(model, example_images(request)))
        names = [n for n in get_trainable_parameters(model) if n not in out]
        names = [n for n in names if not any(fnmatch(n, pattern) for pattern in self.exclude)]
        if not names:
            raise ValueError(
                f"localization.exclude={list(self.exclude)} leaves no parameter to select"
            )
        return names

    def count_selectable_entries(
        self, model: nn.Module, names: Sequence[str], budget: float
    ) -> int:
        """Return the maximum number of entries to select."""
        sizes = {n: p.numel() for n, p in get_trainable_parameters(model).items()}
        base = sizes if self.count_base == "all" else names
        return min(
            count_allowed_parameters(sum(sizes[n] for n in base), budget),
            sum(sizes[n] for n in names),
        )

    def build_units(
        self, model: nn.Module, request: Request, scores: Mapping[str, Tensor]
    ) -> Units:
        """Return the units of the parameters that have scores."""
        shape = {n: p.shape for n, p in get_trainable_parameters(model).items()}
        if self.granularity == "parameter":
            return build_scalar_units(scores, shape)
        if self.granularity == "layer":
            return build_layer_units(scores, shape, group_by_layer(model, example_images(request)))
        conv = any(isinstance(m, COUNTED[0]) for m in model.modules())
        h = self.h or ({"frac_of_cout": 0.1} if conv else "all")  # as the reference code does
        axis = {n: a for n in scores for p, a in (self.unit_axis or {}).items() if fnmatch(n, p)}
        tied = _match_tied_parameters(model, example_images(request)) if self.tie_1d else {}
        heads = count_attention_heads(model) if self.granularity == "head" else {}
        return build_channel_units(
            scores, shape, how=self.aggregate, h=h, axis=axis, tied=tied, heads=heads
        )


def count_attention_heads(model: nn.Module) -> dict[str, int]:
    """Return the number of attention heads of each stacked query-key-value weight, by name.

    A weight is recognised by its name ("qkv", "in_proj") and by a module with ``heads`` (or
    ``num_heads``) above it, if its rows can be split into three times that many parts.

    Raises:
        ValueError: If there are none.
    """
    out: dict[str, int] = {}
    for path, module in model.named_modules():
        count = getattr(module, "heads", None) or getattr(module, "num_heads", None)
        if not isinstance(count, int):
            continue
        for name, p in module.named_parameters(prefix=path):
            if (
                p.ndim == 2
                and ("qkv" in name or "in_proj" in name)
                and p.shape[0] % (3 * count) == 0
            ):
                out[name] = count
    if not out:
        raise ValueError(
            f"localization.granularity=head needs attention; {type(model).__name__} has none"
        )
    return out


def _match_tied_parameters(model: nn.Module, image: Tensor) -> dict[str, str]:
    """Return for 1-dimensional parameters the last weight of their layer with equal channels."""
    parameters, out = get_trainable_parameters(model), {}
    for names in group_by_layer(model, image).values():
        weights: list[str] = []
        for name in names:
            shape = parameters[name].shape
            if len(shape) > 1:
                weights.append(name)
            elif len(shape) == 1:
                fitting = [w for w in weights if parameters[w].shape[0] == shape[0]]
                out |= {name: fitting[-1]} if fitting else {}
    return out


class RankedLocalizer(ABC):
    """Base class of strategies that select the highest scores."""

    needs_budget = True

    def __init__(self, **ranking: Any) -> None:
        """Store the options; see ``Ranking``."""
        self.ranking = Ranking(**ranking)

    @abstractmethod
    def compute_scores(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """Return a non-negative score of every entry, by parameter name."""

    def compute_masks(
        self, model: nn.Module, request: Request, budgets: Sequence[float]
    ) -> list[dict[str, Tensor]]:
        """Return a mask for each budget, from one pass over the data."""
        r = self.ranking
        names = r.list_eligible_names(model, request)
        scores = self.compute_scores(model, request)
        units = r.build_units(model, request, {n: scores[n] for n in names})
        fill = {"fill": r.fill, "skip_nonfitting": r.skip_nonfitting}
        with torch.no_grad():
            return [
                select_best_units(units, r.count_selectable_entries(model, names, b), **fill)
                for b in budgets
            ]

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return the mask, bool by parameter name."""
        return self.compute_masks(model, request, [budget])[0]
