"""Tables and the figure of a diagnosis: gradients, rewinding, retraining and masks, layer by layer.

Shapes: L layers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from unlearn.evaluation.diagnosis.mask_overlap import by_third, compute_overlaps, mean_depth
from unlearn.methods.localization.mask import Mask
from unlearn.reporting.figures.canvas import new_figure as empty
from unlearn.reporting.figures.planes import COLOURS

SETS = {"forget": COLOURS[3], "retain": COLOURS[0]}
DOTS = {"forget": {"ms": 6.5, "mfc": "none", "lw": 2}, "retain": {"ms": 3, "lw": 1}}
"""Styles that stay visible where the lines coincide."""
MARKS = "osD^v<>P"
TITLES = {
    "gradient/forget": "gradient forget",
    "gradient/retain": "gradient retain",
    "gradient/ratio": "forget / retain",
    "gradient/cosine": "cosine",
    "rewound/forget": "rewound: forget",
    "rewound/retain": "rewound: retain",
    "retrained/forget": "retrained: forget",
    "retrained/retain": "retrained: retain",
}


@dataclass
class Diagnosis:
    """Results of a diagnosis.

    Attributes:
        groups: Names of the parameters of each layer, the input's first.
        parameters: Number of parameters of each layer.
        whole: Accuracy of the unchanged network on "forget" and "retain", in [0, 1].
        gradients: Per layer "forget", "retain" and "cosine".
        rewound: Per layer the accuracies with it rewound.
        retrained: Per layer the accuracies over the epochs, 0 first; empty: not run.
        masks: Masks by localization; may be empty.
    """

    groups: Mapping[str, Sequence[str]]
    parameters: Mapping[str, int]
    whole: Mapping[str, float]
    gradients: Mapping[str, Mapping[str, float]]
    rewound: Mapping[str, Mapping[str, float]]
    retrained: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    masks: dict[str, Mask] = field(default_factory=dict)


def make_tables(found: Diagnosis) -> dict[str, pd.DataFrame]:
    """Return the tables by the stem of their files: of the layers, and of masks if there are any."""
    out = {"diagnosis": _layer_table(found)}
    if found.masks:
        out |= {"diagnosis_shares": _share_table(found), "diagnosis_masks": _mask_table(found)}
        out["diagnosis_overlap"] = _overlap_table(found)
    return out


def _layer_table(found: Diagnosis) -> pd.DataFrame:
    """Return a row per layer, after one of the unchanged network."""
    whole = {"layer": "(none)", "n": sum(found.parameters.values())}
    rows = [whole | {f"rewound/{part}": found.whole[part] for part in SETS}]
    for layer in found.groups:
        pulls = found.gradients[layer]
        row = {"layer": layer, "n": found.parameters[layer]}
        row |= {f"gradient/{name}": pulls[name] for name in SETS}
        row["gradient/ratio"] = pulls["forget"] / (pulls["retain"] or math.nan)
        row["gradient/cosine"] = pulls["cosine"]
        row |= {f"rewound/{part}": found.rewound[layer][part] for part in SETS}
        if found.retrained.get(layer):
            row |= {f"retrained/{part}": found.retrained[layer][-1][part] for part in SETS}
        rows.append(row)
    names = [name for name in ("layer", "n", *TITLES) if any(name in row for row in rows)]
    return _add_titles(pd.DataFrame(rows)[names])


def _share_table(found: Diagnosis) -> pd.DataFrame:
    """Return a row per layer with its share in each mask."""
    by_mask = {name: mask.compute_group_shares(found.groups) for name, mask in found.masks.items()}
    table = pd.DataFrame({"layer": list(found.groups), "n": list(found.parameters.values())})
    for name, shares in by_mask.items():
        table[name] = table["layer"].map(shares)
    return _add_titles(table)


def _mask_table(found: Diagnosis) -> pd.DataFrame:
    """Return a row per strategy: size and mean depth of the mask."""
    rows = [
        {"strategy": name, "n": mask.count_movable(), "share": mask.compute_movable_share()}
        | {"depth": mean_depth(mask, found.groups)}
        | {f"{third} third": share for third, share in by_third(mask, found.groups).items()}
        for name, mask in found.masks.items()
    ]
    return _add_titles(pd.DataFrame(rows))


def _overlap_table(found: Diagnosis) -> pd.DataFrame:
    """Return a row per strategy with its Jaccard overlap with each other."""
    shared = compute_overlaps(found.masks)
    rows = [
        {"strategy": name, "n": mask.count_movable()} | shared[name]
        for name, mask in found.masks.items()
    ]
    return _add_titles(pd.DataFrame(rows))


def _add_titles(table: pd.DataFrame) -> pd.DataFrame:
    table.attrs |= {"n": "parameters"} | {k: v for k, v in TITLES.items() if k in table}
    return table


def make_curves(found: Diagnosis) -> pd.DataFrame:
    """Return columns layer, epoch, forget, retain of the layers' retraining."""
    return pd.DataFrame(
        [{"layer": layer} | row for layer, curve in found.retrained.items() for row in curve]
    )


def draw_diagnosis(found: Diagnosis) -> Figure:
    """Return the panels over the layers and, with masks, their overlap at the side."""
    layers = list(found.groups)
    panels = 3 + bool(found.retrained) + bool(found.masks)
    width = 2.2 + 0.34 * len(layers)
    fig = empty(width + (4.6 if found.masks else 0), 1.0 + 1.75 * panels)
    left: Figure | SubFigure = fig
    if found.masks:
        left, right = fig.subfigures(1, 2, width_ratios=(width, 4.6)).tolist()  # type: ignore[union-attr]
        _draw_overlap(right, found)
    axes = list(left.subplots(panels, 1, squeeze=False, sharex=True)[:, 0])
    _draw_gradients(axes[0], axes[1], found)
    _draw_accuracies(axes[2], found, found.rewound, "accuracy,\nlayer rewound")
    if found.retrained:
        last = {layer: curve[-1] for layer, curve in found.retrained.items() if curve}
        _draw_accuracies(axes[3], found, last, "accuracy,\nlayer retrained")
    if found.masks:
        _mask_lines(axes[-1], found)
    for ax in axes:
        ax.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=7)
    return fig


def _draw_gradients(pulls: Axes, cosines: Axes, found: Diagnosis) -> None:
    for part, colour in SETS.items():
        values = [row[part] for row in found.gradients.values()]
        pulls.plot(values, color=colour, marker="o", label=f"{part} set", **DOTS[part])
    pulls.set_yscale("log")
    pulls.set_ylabel("gradient", fontsize=8)
    pulls.legend(fontsize=7, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))
    values = [row["cosine"] for row in found.gradients.values()]
    cosines.bar(range(len(values)), values, color="#888888", width=0.6)
    cosines.axhline(0, color="#444444", lw=0.8)
    cosines.set_ylim(-1.05, 1.05)
    cosines.set_ylabel("cosine of\nthe two", fontsize=8)


def _draw_accuracies(
    ax: Axes, found: Diagnosis, rows: Mapping[str, Mapping[str, float]], label: str
) -> None:
    """Draw accuracies over the layers; dashed: those of the unchanged network."""
    place = {layer: i for i, layer in enumerate(found.groups)}
    for part, colour in SETS.items():
        x, y = [place[layer] for layer in rows], [row[part] for row in rows.values()]
        ax.plot(x, y, color=colour, marker="o", **DOTS[part])
        ax.axhline(found.whole[part], color=colour, ls="--", lw=0.8)
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel(label, fontsize=8)


def _mask_lines(ax: Axes, found: Diagnosis) -> None:
    for i, (name, mask) in enumerate(found.masks.items()):
        shares = list(mask.compute_group_shares(found.groups).values())
        ax.plot(
            shares, color=COLOURS[i % len(COLOURS)], marker=MARKS[i % len(MARKS)], ms=3.5, lw=1,
            label=name.replace("_", " "),
        )  # fmt: skip
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel("share of layer\nin mask", fontsize=8)


def _draw_overlap(part: SubFigure, found: Diagnosis) -> None:
    """Draw the overlap of every two masks, and the legend."""
    names = [name.replace("_", " ") for name in found.masks]
    values = pd.DataFrame(compute_overlaps(found.masks)).to_numpy()
    ax, key = part.subplots(2, 1, height_ratios=(2.2, 1))
    for i, name in enumerate(names):
        key.plot(
            [], color=COLOURS[i % len(COLOURS)], marker=MARKS[i % len(MARKS)], ms=4, label=name
        )
    key.axis("off")
    key.legend(fontsize=8, frameon=False, loc="center left", title="masks", title_fontsize=8)
    ax.imshow(values, vmin=0, vmax=1, cmap="viridis")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            shade = "white" if value < 0.6 else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=shade)
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set_title("Jaccard overlap of the masks", fontsize=9)
