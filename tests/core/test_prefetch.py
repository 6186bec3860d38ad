"""Reading ahead: order, errors, and the end of the thread."""

import threading

import pytest

from unlearn.core.prefetch import prefetch


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_items_come_in_order_and_the_thread_ends():
    assert list(prefetch(iter(range(20)))) == list(range(20))
    assert list(prefetch([])) == [] and threads() == []


def test_items_are_made_ahead_and_no_further():
    made: list[int] = []
    items = prefetch((made.append(n) or n for n in range(20)), depth=3)
    assert next(items) == 0
    items.close()  # waits for what is being made
    assert 1 <= len(made) <= 4 and threads() == []


def test_an_error_comes_in_its_place():
    def make():
        yield 1
        raise OSError("no more")

    items = prefetch(make())
    assert next(items) == 1
    with pytest.raises(OSError, match="no more"):
        next(items)
    assert threads() == []
