"""The small variant of a published experiment: values that replace those of the full recipe."""

from collections.abc import Mapping
from typing import Any

SCALES = ("full", "small")
REPLACED = ("title", "runs", "where", "by", "figure", "expected", "cost")
"""Keys that ``small`` may hold, besides ``overrides`` of the command line."""


def select_scale(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of evaluate.py at its ``scale``.

    Raises:
        ValueError: If the scale is unknown, the experiment has no small variant, or that variant holds a
            key that it may not.
    """
    scale, small = config.get("scale", "full"), config.get("small") or {}
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale}")
    if scale == "full":
        return dict(config)
    unknown = sorted(set(small) - {*REPLACED, "overrides"})
    if unknown:
        raise ValueError(f"small: unknown {', '.join(unknown)}; allowed: {', '.join(REPLACED)}")
    if not small:
        raise ValueError("scale=small: this experiment has no small variant")
    return {**config, **{key: small[key] for key in REPLACED if key in small}}
