"""Measures how fast the product is, as ratios from one run; a Markdown table per part on stdout.

    python -m benchmarks                    # all parts
    python -m benchmarks step startup       # some of them
    METHODS=npo,rem python -m benchmarks methods --rounds 5

Both sides of a comparison take turns; the middle of the rounds counts. The same command measures
the GPU where torch sees one. OMP_NUM_THREADS says how many threads the CPU figures use.
"""

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

from unlearn.training.engine import silence_lightning

PARTS = {
    "step": ("step", "pretraining", "methods"),
    "pretraining": ("step", "pretraining"),
    "methods": ("step", "methods"),
    "peers": ("peers", "table"),
    "startup": ("startup", "table"),
    "outside": ("outside", "table"),
    "plane": ("plane", "table"),
    "memory": ("memory", "table"),
    "stacking": ("stacking", "table"),
    "recording": ("recording", "table"),
    "spreading": ("spreading", "table"),
    "checksums": ("checksums", "table"),
    "cifar": ("cifar", "table"),
}
ALL = (
    "step",
    "peers",
    "startup",
    "outside",
    "stacking",
    "recording",
    "spreading",
    "plane",
    "memory",
    "checksums",
)
ON_GPU_ALONE = ("cifar",)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each comparison")
    asked = parser.parse_args()
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown or asked.rounds < 1:
        parser.error(f"parts are {', '.join(PARTS)}, rounds at least 1; got {' '.join(unknown)}")
    from benchmarks.measuring import ON_GPU, machine

    print(f"{machine()}\n\n`python -m benchmarks {' '.join(sys.argv[1:])}`\n", flush=True)
    with silence_lightning(), warnings.catch_warnings():
        for part in asked.parts or (*ALL, *(ON_GPU_ALONE if ON_GPU else ())):
            module, *functions = PARTS[part]
            for name in functions:
                call: Callable[[int], Any] = getattr(
                    importlib.import_module(f"benchmarks.{module}"), name
                )
                print(call(asked.rounds).markdown(), flush=True)


if __name__ == "__main__":
    main()
