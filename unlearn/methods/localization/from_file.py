"""A mask from a file, as every localized run leaves one."""

from pathlib import Path

from torch import Tensor, nn

from unlearn.core.types import Request
from unlearn.methods.localization.mask import Mask


class Saved:
    """Load a mask; it has to fit the network and to keep to the budget, if there is one."""

    needs_budget = False

    def __init__(self, *, path: str) -> None:
        """Load the file ``path``.

        Raises:
            ValueError: If there is no such file, or it holds no mask.
        """
        if not Path(path).is_file():
            raise ValueError(f"localization.path must be a file with a mask, got {path}")
        self.mask = Mask.load(Path(path))

    def __call__(self, model: nn.Module, request: Request, budget: float) -> dict[str, Tensor]:
        """Return where parameters may move.

        Raises:
            ValueError: If the mask is one for another network.
        """
        self.mask.check_matches_model(model)
        return dict(self.mask)
