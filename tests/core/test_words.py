"""Numbers and their nouns."""

import pytest

from unlearn.core.words import count_noun


@pytest.mark.parametrize(("count", "text"), [(0, "0 cells"), (1, "1 cell"), (2, "2 cells")])
def test_a_noun_agrees_with_its_number(count: int, text: str):
    assert count_noun(count, "cell") == text
