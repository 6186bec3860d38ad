"""The original model, untouched: the point where every method starts."""

from unlearn.methods.components.one_shot import OneShot


class Original(OneShot):
    """Do nothing. For a network trained with example-tied dropout this drops the memorizing part."""

    def __init__(self) -> None:
        """Take no options."""
        super().__init__(batch_size=1)
