"""Empty figures and their files; Agg through the object interface, without display or global state."""

from functools import partial
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unlearn.core.files import write_atomically


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches."""
    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def file_name(label: str) -> str:
    """Return a label as a safe part of a file name: letters, digits, - and _."""
    kept = "".join(c if c.isalnum() or c in "-_" else " " for c in label)
    return "_".join(kept.split())


def save_figure(fig: Figure, stem: Path) -> list[Path]:
    """Write PNG and PDF, each by rename.

    Args:
        fig: The figure.
        stem: Path without suffix.

    Returns:
        The paths.
    """
    paths = []
    for suffix, metadata in ((".png", {}), (".pdf", {"CreationDate": None})):
        path = stem.with_name(stem.name + suffix)
        save = partial(fig.savefig, format=suffix[1:], dpi=150, metadata=metadata)
        with mpl.rc_context({"pdf.fonttype": 42}):  # venues refuse the default, Type 3
            write_atomically(path, save)
        paths.append(path)
    return paths
