"""The input that a network of timm was trained on, from timm's own data config."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NetworkInput:
    """Normalization, size and interpolation of a network's images.

    Attributes:
        mean: Channel means of images in [0, 1].
        std: Channel standard deviations.
        image_size: Height and width in pixels.
        interpolation: Name of the interpolation of its images, such as bicubic.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    image_size: int = 224
    interpolation: str = "bilinear"

    def compare(self, mean: Sequence[float], std: Sequence[float], image_size: int) -> list[str]:
        """Return a text for each given value that differs, ``dataset.mean=... (its own: ...)``."""
        given = {"mean": list(mean), "std": list(std), "image_size": image_size}
        own = {"mean": list(self.mean), "std": list(self.std), "image_size": self.image_size}
        return [
            f"dataset.{key}={given[key]} (its own: {own[key]})"
            for key in given
            if not _is_close(given[key], own[key])
        ]


def read_network_input(name: str) -> NetworkInput:
    """Return the input of a network of timm; the usual values if timm knows none.

    Raises:
        ValueError: If timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError("model=timm needs timm: pip install 'unlearn-bench[timm]'") from error
    found = timm.get_pretrained_cfg(name)
    if found is None:
        return NetworkInput()
    return NetworkInput(
        tuple(found.mean), tuple(found.std), int(found.input_size[-1]), str(found.interpolation)
    )


def _is_close(given: Any, own: Any) -> bool:
    if isinstance(given, int):
        return given == own
    return len(given) == len(own) and all(
        abs(a - b) < 1e-3 for a, b in zip(given, own, strict=True)
    )
