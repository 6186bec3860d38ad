"""The original model, unchanged: the baseline that every method starts from."""

from typing import ClassVar

from unlearn.methods.components.one_shot import OneShot


class Original(OneShot):
    """Return the original model; a network with extra channels loses them."""

    role: ClassVar[str] = "baseline"
    uses_forget_set: ClassVar[bool] = False
    uses_retain_set: ClassVar[bool] = False

    def __init__(self) -> None:
        """Initialise without options."""
        super().__init__(batch_size=1)
