"""The original model, unchanged: the baseline that every method starts from."""

from unlearn.methods.components.one_shot import OneShot


class Original(OneShot):
    """Return the original model; a network with extra channels loses them."""

    def __init__(self) -> None:
        """Initialise without options."""
        super().__init__(batch_size=1)
