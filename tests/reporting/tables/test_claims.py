from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import to_plain_config
from unlearn.config.registration import config_dir
from unlearn.reporting.tables import claims

Frame = Callable[..., pd.DataFrame]
PRESETS = sorted(
    p.stem for p in (Path(config_dir()) / "experiment/report").glob("reproduce_*.yaml")
)


def verdicts(rows: pd.DataFrame, **node) -> list[str]:
    parsed = claims.parse_claims({"column": "healed", "source": "s", **node})
    return claims.compare_claims(rows, parsed)["verdict"].tolist()


def test_a_value_agrees_within_its_tolerance(rows: pd.DataFrame):
    # rem: (0.8 + 0.9 + 1 + 1) / 4 = 0.925
    table = claims.compare_claims(
        rows,
        claims.parse_claims({"method": "rem", "column": "healed", "value": 0.9, "tolerance": 0.025, "source": "s"}),
    )  # fmt: skip
    row = table.iloc[0]
    assert row["measured"] == pytest.approx(0.925) and row["n"] == 4 and row["verdict"] == "inside"
    assert row["expected"] == "0.9 ± 0.025" and row["claim"] == "rem: healed"
    assert verdicts(rows, method="rem", value=0.9, tolerance=0.02) == ["outside"]
    assert verdicts(rows, method="ssd", value=0.9) == ["missing"]
    assert verdicts(rows, method="rem", column="colour", value=0.9) == ["missing"]


def test_bounds(rows: pd.DataFrame):
    assert verdicts(rows, method="rem", at_least=0.925) == ["inside"]
    assert verdicts(rows, method="rem", at_least=0.93) == ["outside"]
    assert verdicts(rows, method="rem", at_most=0.93, at_least=0.9) == ["inside"]
    assert verdicts(rows, method="rem", at_most=0.9) == ["outside"]


def test_only_the_rows_of_where_count(rows: pd.DataFrame):
    at = {"method": "npo_fast", "value": 0.3, "tolerance": 0.001}
    assert verdicts(rows, **at, where={"discovery": 0.5}) == ["inside"]
    assert verdicts(rows, **at, where={"discovery": [0.5, 1.0]}) == ["outside"]
    assert verdicts(rows, **at, where={"colour": "red"}) == ["missing"]


def test_an_order_compares_neighbours_on_common_cells(rows: pd.DataFrame):
    assert verdicts(rows, order="rem > npo_fast >= rem ~ ssd") == ["inside", "outside", "missing"]
    assert verdicts(rows, order="rem ~ npo_fast", tolerance=0.53) == ["inside"]
    assert verdicts(rows, order="npo_fast >= rem", tolerance=0.53) == ["inside"]
    assert verdicts(rows, order="npo_fast >= rem", tolerance=0.52) == ["outside"]
    same = pd.concat([rows, rows.replace({"rem": "twin"})])
    assert verdicts(same, order="rem >= twin > rem") == ["inside", "outside"]
    # without its best cell npo_fast is compared on the three others: 0.9 against 0.333
    few = claims.compare_claims(rows.drop(index=2), claims.parse_claims({"order": "rem > npo_fast", "column": "healed", "source": "s"}))  # fmt: skip
    assert few["n"][0] == 3 and few["measured"][0] == pytest.approx(0.9 - 1 / 3)


def test_a_difference_between_tasks(rows: pd.DataFrame):
    node = {"method": "npo_fast", "where": {"discovery": 1.0}, "minus": {"discovery": 0.5}}
    # (0.6 + 0.4) / 2 - (0.2 + 0.4) / 2
    assert verdicts(rows, **node, value=0.2, tolerance=1e-6) == ["inside"]
    claim = claims.parse_claims({"column": "healed", "source": "s", **node, "at_least": 0.1})[0]
    assert claim.format_name() == "npo_fast − npo_fast at discovery=0.5: healed"
    assert claims.measure_claim(rows, claim)["where"] == "discovery=1.0"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"method": "rem", "order": "a > b"}, "method or order, column and source"),
        ({"method": "rem"}, "needs value, at_least, at_most or order"),
        ({"method": "rem", "valeu": 1}, "unknown valeu; allowed: method"),
        ({"order": "a and b"}, "order must be such as 'a >= b'"),
        ({"method": "rem", "value": 1, "source": ""}, "column and source must be given"),
    ],
)
def test_what_is_no_claim(node: dict, message: str):
    with pytest.raises(ValueError, match=message):
        claims.parse_claims({"column": "healed", "source": "s", **node})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_composes_and_states_claims_with_a_source(name: str):
    with enable_composition([config_dir()]):
        content = to_plain_config(
            compose_config("evaluate", [f"experiment=report/{name}"], [config_dir()])
        )
    made = [claim for node in content["expected"] for claim in claims.parse_claims(node)]
    assert made and all("arXiv" in c.source or "our" in c.source for c in made)
    assert content["runs"] or content["compare_scores"]
    text = (Path(config_dir()) / "experiment/report" / f"{name}.yaml").read_text()
    assert f"python evaluate.py experiment={name}" in text


def test_the_presets_hold_the_published_table():
    with enable_composition([config_dir()]):
        content = to_plain_config(
            compose_config("evaluate", ["experiment=report/reproduce_rem_table"], [config_dir()])
        )
    values = {(n["method"], n["column"]): n["value"] for n in content["expected"] if "value" in n}
    assert values["rem(capacity)", "healed_utility"] == 0.734
    assert values["scrub(etd)", "healed"] == 0.6695
    assert values["potion(capacity)", "utility"] == 0.5306
