"""Words in messages."""


def count_noun(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 cell``, ``2 cells``, ``0 cells``."""
    return f"{count} {noun}{'s' * (count != 1)}"
