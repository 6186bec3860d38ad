from collections.abc import Callable

import pandas as pd
import pytest

COLUMNS = ["method", "corruption", "discovery", "seed", "status", "healed", "utility", "seconds"]


def made(*cells: tuple) -> pd.DataFrame:
    out = pd.DataFrame(list(cells), columns=COLUMNS)
    out["healed_utility"] = out["healed"] * out["utility"]
    return out


@pytest.fixture
def frame() -> Callable[..., pd.DataFrame]:
    return made


@pytest.fixture
def rows() -> pd.DataFrame:
    return made(
        ("npo_fast", "poison", 0.5, 0, "ok", 0.2, 1.0, 1.0),
        ("npo_fast", "poison", 0.5, 1, "ok", 0.4, 1.0, 2.0),
        ("npo_fast", "poison", 1.0, 0, "ok", 0.6, 1.0, 3.0),
        ("npo_fast", "poison", 1.0, 1, "ok", 0.4, 1.0, 6.0),
        ("rem", "poison", 0.5, 0, "ok", 0.8, 0.5, 2.0),
        ("rem", "poison", 0.5, 1, "ok", 0.9, 1.0, 2.0),
        ("rem", "poison", 1.0, 0, "ok", 1.0, 1.0, 2.0),
        ("rem", "poison", 1.0, 1, "ok", 1.0, 1.0, 2.0),
    )
