"""A mask loaded from a file, as saved by every localized run."""

from pathlib import Path

from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.mask import Mask


class Saved:
    """Load a mask; it must match the network and the budget, if there is one."""

    needs_budget = False

    def __init__(self, *, path: str) -> None:
        """Load the mask from ``path``.

        Raises:
            ValueError: If the file does not exist or holds no mask.
        """
        if not Path(path).is_file():
            raise ValueError(f"localization.path must be a file with a mask, got {path}")
        self.mask = Mask.load(Path(path))

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return the loaded mask.

        Raises:
            ValueError: If the mask does not match the network.
        """
        self.mask.check_matches_model(model)
        return dict(self.mask)
