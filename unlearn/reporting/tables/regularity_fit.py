"""Fit of each method's product over discovery rate and measured regularity, with its uncertainty.

A Gaussian process per method: squared-exponential kernel, length scales by marginal likelihood of a
small grid. "Doing nothing" is the fit of the original model. Shapes: n cells, g points of a grid.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unlearn.reporting.tables.facts import BASELINE, read_fact
from unlearn.reporting.tables.frames import fill_collapsed, standard_error
from unlearn.reporting.tables.measured_regularity import COLUMN
from unlearn.reporting.tables.trusted import is_trusted

LENGTHS = (0.25, 0.5, 1.0, 2.0)
"""Length scales tried for either axis."""
SCALE, NOISE = 0.3, 0.05
"""Standard deviations of a product over the plane, and between seeds where it is not measured."""
LEAST, LEVELS = 6, 3
"""Minimum numbers of cells, and of different regularities among them, for a fit."""
RATES = tuple(round(0.1 * i, 1) for i in range(1, 11))
STEPS = 11
"""Regularities of the grid, from the lowest measured one to the highest: nothing is extrapolated."""
SURE = 2.0
"""Standard deviations of a difference that is called certain."""
VALUE = "healed_utility"


@dataclass(frozen=True)
class Surface:
    """A fitted product.

    Attributes:
        count: Number of cells.
        center: Mean of their values.
        model: The fitted ``GaussianProcessRegressor`` of the deviations.
    """

    count: int
    center: float
    model: Any

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean in [0, 1] and standard deviation, (g,), at points (g, 2): rate, regularity."""
        mean, deviation = self.model.predict(points, return_std=True)
        return np.clip(mean + self.center, 0, 1), deviation


def fit_surface(points: np.ndarray, values: np.ndarray, errors: np.ndarray) -> Surface:
    """Return the process of largest marginal likelihood.

    Args:
        points: Discovery rate and regularity, (n, 2).
        values: Products in [0, 1], (n,).
        errors: Their standard errors, (n,); NaN where unknown.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    center = float(values.mean())
    noise = np.where(np.isnan(errors), NOISE, np.maximum(errors, NOISE / 2)) ** 2
    process: Any = GaussianProcessRegressor  # its stubs name types of the defaults alone
    radial: Any = RBF
    best: Any = None
    for lengths in itertools.product(LENGTHS, LENGTHS):
        kernel = ConstantKernel(SCALE**2) * radial(lengths)
        model = process(kernel, alpha=noise, optimizer=None)
        model.fit(points, values - center)
        likelihood = model.log_marginal_likelihood_value_
        if best is None or likelihood > best.log_marginal_likelihood_value_ + 1e-9:
            best = model
    return Surface(len(values), center, best)


def average_products(frame: pd.DataFrame) -> pd.DataFrame:
    """Return mean product and its error over seeds per method, discovery rate and regularity.

    Args:
        frame: Rows with the column ``measured_regularity``; others are left out.
    """
    known = fill_collapsed(frame[frame[COLUMN].notna()], [VALUE])
    known = known[known[VALUE].notna()].assign(role=read_fact(known, "role"))
    rows = []
    keys = ["method", "corruption", "discovery", COLUMN]
    for key, group in known.groupby(keys):
        row: dict[str, Any] = dict(zip(keys, key, strict=True))
        row |= {VALUE: group[VALUE].mean(), f"{VALUE}_sem": standard_error(group[VALUE])}
        given = bool(is_trusted(group).any())
        rows.append(row | {"role": group["role"].iloc[0], "trusted": given})
    return pd.DataFrame(rows, columns=[*keys, VALUE, f"{VALUE}_sem", "role", "trusted"])


def fit_methods(cells: pd.DataFrame) -> dict[str, Surface]:
    """Return the fit of each method with enough cells, by name.

    Args:
        cells: ``method``, ``discovery``, ``measured_regularity``, the product and its error.
    """
    out = {}
    cells = cells[cells[COLUMN].notna() & cells[VALUE].notna()]
    for method, group in cells.groupby("method"):
        if len(group) < LEAST or group[COLUMN].nunique() < LEVELS:
            continue
        points = group[["discovery", COLUMN]].to_numpy(float)
        values, errors = (group[c].to_numpy(float) for c in (VALUE, f"{VALUE}_sem"))
        out[str(method)] = fit_surface(points, values, errors)
    return out


def find_baseline(cells: pd.DataFrame) -> str | None:
    """Return the name of the method that does nothing; None if there is none."""
    if cells.empty:
        return None
    idle = cells.loc[read_fact(cells, "role") == BASELINE, "method"]
    return None if idle.empty else str(idle.iloc[0])


def compare_with_nothing(cells: pd.DataFrame) -> pd.DataFrame:
    """Return for each fitted method where its product falls below that of doing nothing.

    Args:
        cells: As from ``average_products``.

    Returns:
        ``method``, ``n`` cells, the mean ``product`` of the fit over the plane with its mean standard
        deviation ``product_sd``, the share of the plane that is ``below`` doing nothing, the share that
        is so by two standard deviations (``surely_below``), and ``where``; the best first. Empty
        without fits or without the original model.
    """
    surfaces, idle = fit_methods(cells), find_baseline(cells)
    if idle not in surfaces:
        return pd.DataFrame()
    grid = make_grid(cells)
    nothing, nothing_sd = surfaces[idle].predict(grid)
    rows = []
    for method, surface in surfaces.items():
        mean, deviation = surface.predict(grid)
        gap, error = mean - nothing, np.hypot(deviation, nothing_sd)
        below = (gap < 0) if method != idle else np.zeros(len(gap), dtype=bool)
        rows.append({
            "method": method, "n": surface.count, "product": mean.mean(),
            "product_sd": deviation.mean(), "below": below.mean(),
            "surely_below": (below & (gap < -SURE * error)).mean(),
            "where": describe_region(grid[below]),
        })  # fmt: skip
    out = pd.DataFrame(rows)
    return out.sort_values("product", ascending=False, kind="stable", ignore_index=True)


def make_grid(cells: pd.DataFrame) -> np.ndarray:
    """Return places of the measured part of the plane, (g, 2): discovery rate, regularity."""
    levels = np.linspace(cells[COLUMN].min(), cells[COLUMN].max(), STEPS)
    return np.array(list(itertools.product(RATES, levels)))


def describe_region(points: np.ndarray) -> str:
    """Return the smallest box that holds points (m, 2); empty for none."""
    if not len(points):
        return ""
    low, high = points.min(0), points.max(0)
    return f"discovery {low[0]:g} to {high[0]:g}, regularity {low[1]:.2f} to {high[1]:.2f}"


def advise_at(cells: pd.DataFrame, regularity: float, discovery: float | None) -> pd.DataFrame:
    """Return the fitted products of all methods at a user's place of the plane, the best first.

    Args:
        cells: Cells with ``measured_regularity``.
        regularity: Estimate, in [0, 1].
        discovery: Discovery rate; None: the mean over all rates.

    Returns:
        ``method``, ``n`` cells, ``product`` and ``product_sd`` of the fit, its distance ``gain`` to doing nothing,
        and ``verdict``: "below doing nothing" (by two standard deviations: "surely below doing
        nothing") or empty. Empty without fits or without the original model.
    """
    surfaces, idle = fit_methods(cells), find_baseline(cells)
    if idle not in surfaces:
        return pd.DataFrame()
    rates = RATES if discovery is None else (discovery,)
    points = np.array([(rate, regularity) for rate in rates])
    found = {name: [v.mean() for v in s.predict(points)] for name, s in surfaces.items()}
    rows = []
    for method, (mean, deviation) in found.items():
        gain = mean - found[idle][0]
        sure = gain < -SURE * math.hypot(deviation, found[idle][1])
        verdict = "below doing nothing" if gain < 0 and method != idle else ""
        rows.append({
            "method": method, "n": surfaces[method].count, "product": mean, "product_sd": deviation, "gain": gain,
            "verdict": f"surely {verdict}" if verdict and sure else verdict,
        })  # fmt: skip
    out = pd.DataFrame(rows)
    return out.sort_values("product", ascending=False, kind="stable", ignore_index=True)
