import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from unlearn.reporting.pages import results_page, run_folders
from unlearn.storage.results_store import ResultsStore


@pytest.fixture(scope="module")
def data(store: ResultsStore) -> dict:
    return results_page.collect_content(store, store.load(), store.root.parent / "reports")


def run(data: dict, run_id: str) -> dict:
    return next(r for r in data["runs"] if r["id"] == run_id)


def test_lists_are_in_the_order_of_the_maps(data: dict):
    assert data["methods"] == ["rem", "npo", "etd"]  # best product first
    assert data["corruptions"] == ["poison", "random_label"] and data["rates"] == [0.1, 0.5]
    assert data["sources"] == ["digits · resnet9"]
    keys = [m["key"] for m in data["metrics"]]
    assert keys[:4] == ["healed", "utility", "healed_utility", "seconds"]
    assert set(keys[4:]) == {"hidden/accuracy", "peak_bytes"}


def test_methods_that_saw_the_truth_come_last(store: ResultsStore):
    frame = store.load()
    frame.loc[frame["method"] == "rem", "role"] = "upper bound"
    frame["method"] = frame["method"].replace("rem", "rem(IDEAL)")
    shown = results_page.collect_content(store, frame, store.root)
    assert shown["methods"] == ["npo", "etd", "rem(IDEAL)"] and shown["oracles"] == ["rem(IDEAL)"]


def test_metrics_say_how_they_are_shown(data: dict):
    by = {m["key"]: m for m in data["metrics"]}
    assert by["healed"]["best"] == "max" and by["healed"]["fraction"] and by["healed"]["counted"]
    assert by["seconds"]["best"] == "min" and not by["seconds"]["fraction"]
    assert by["hidden/accuracy"]["best"] is None and not by["hidden/accuracy"]["counted"]
    assert by["healed_utility"]["title"] == "healed x utility"


def test_directions_come_from_our_metrics_alone(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    column = "config/evaluation.x._target_"
    names = [
        "unlearn.evaluation.metrics.compute_attack_success",
        "unlearn.evaluation.metrics.gone",
        "this.s",
    ]
    with caplog.at_level(logging.WARNING):
        found = results_page._metric_directions(pd.DataFrame({column: names}))
    assert found == {"attack_success_rate": "min"}
    assert "metrics.gone" in caplog.text and "The Zen" not in capsys.readouterr().out


def test_a_run_holds_its_values_and_references(data: dict):
    one = run(data, "run-rem-poison-0-5-1")
    healed = 0.95 - 0.1 + 0.5 / 9 + 0.01
    assert one["values"][:2] == pytest.approx([healed, 0.91], abs=1e-5)
    assert (one["method"], one["corruption"], one["rates"], one["seed"]) == (0, 0, [1], 1)
    assert one["files"] == "mcl" and one["created"].startswith("2026-01-02")
    assert one["command"] == "python unlearn.py method=rem corruption=poison discovery=0.5"


def test_a_method_that_ignores_the_rate_is_stored_once(data: dict):
    etd = [r for r in data["runs"] if r["method"] == 2]
    assert len(etd) == 4 and all(r["rates"] == [0, 1] and r["own"] == 0.1 for r in etd)


def test_copies_that_the_frame_has_already_change_nothing(store: ResultsStore, data: dict):
    from unlearn.reporting.tables.frames import prepare_rows

    again = results_page.collect_content(
        store, prepare_rows(store.load()), store.root.parent / "reports"
    )
    assert again == data


def test_configs_are_stored_as_differences(data: dict):
    assert (
        data["common"]["dataset.num_classes"] == 10 and data["common"]["versions/torch"] == "2.11"
    )
    assert data["common"]["method.lr"] == 0.95
    assert [data["pool"][i] for i in run(data, "run-npo-poison-0-1-0")["differs"]] == [
        ["method.lr", 0.75]
    ]
    assert "differs" not in run(data, "run-rem-poison-0-1-1")  # its seeds follow from its seed
    assert "someone" not in json.dumps(data)


def test_absent_and_odd_seeds_differ():
    rows = pd.DataFrame(
        {"config/a": [1, 1, None], "config/seeds.x": [0, 5, 2], "seed": [0, 1, 2], "other": 1}
    ).assign(**{"config/method.seed": [0, 1, 2]})
    common, pool, differs = results_page.split_configs(rows)
    assert common == {"a": 1}
    assert pool == [["a", None], ["seeds.x", 5]] and differs == [[], [1], [0]]


def test_links_start_at_the_page(store: ResultsStore, data: dict):
    assert data["folder"] == "./../results%20here/"
    here = results_page.collect_content(store, store.load(), store.root)
    assert here["folder"] == "././"


def test_a_broken_run_takes_its_place_as_failed(data: dict):
    lost = run(data, "run-broken")
    assert lost["status"] == "failed" and lost["reason"] == "KeyError: 'x'"
    place = (lost["method"], lost["corruption"], lost["rates"], lost["seed"])
    assert place == (1, 1, [0], 7)
    assert data["broken"] == [
        {"id": "run-broken", "reason": "KeyError: 'x'", "command": lost["command"]}
    ]


def test_a_broken_run_of_other_rows_is_listed_only(store: ResultsStore):
    shown = results_page.collect_content(store, store.load(method="rem"), store.root)
    assert {r["status"] for r in shown["runs"]} == {"ok"} and len(shown["broken"]) == 1


def test_runs_of_other_data_share_no_map(tmp_path: Path, write_run: Callable[..., Path]):
    store = ResultsStore(tmp_path)
    write_run(store, "rem", "poison", 0.5, 0)
    write_run(store, "rem", "poison", 0.5, 1, step=1)
    frame = store.load()
    frame.loc[0, "corrupted"] = 0.1
    shown = results_page.collect_content(store, frame, tmp_path)
    assert shown["sources"] == [
        "digits · resnet9 · corrupted 0.05 · request 1",
        "digits · resnet9 · corrupted 0.1 · request 0",
    ]


def test_curves_join_rows_of_an_epoch_and_are_thinned(tmp_path: Path, curve_text: str):
    path = tmp_path / "metrics.csv"
    path.write_text(curve_text)
    assert run_folders.read_curves(path) == {
        "epoch": [0, 1, 2],
        "base/hidden_accuracy_given": [0.9, 0.4, 0.1],
        "full/hidden_accuracy_given": [0.9, 0.95, 0.97],
        "train/loss": [None, 2.5, 0.5],
    }
    lines = [f"{e},{e / 1000},nan" for e in range(500)]
    path.write_text("\n".join(["epoch,model/corrupted_accuracy_given,train/loss", *lines]))
    thin = run_folders.read_curves(path)
    assert len(thin["epoch"]) == 24 and thin["epoch"][0] == 0 and thin["epoch"][-1] == 499
    assert thin["model/corrupted_accuracy_given"][-1] == 0.499 and thin["train/loss"][3] is None


def test_broken_and_absent_curves(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert run_folders.read_curves(tmp_path / "none.csv") == {} and not caplog.text
    (tmp_path / "torn.csv").write_text("epoch,train/loss\n1,0.2\n2,0.1e")
    assert run_folders.read_curves(tmp_path / "torn.csv") == {}
    assert "skipped broken curves" in caplog.text


def test_the_command_is_quoted_or_absent(tmp_path: Path):
    assert run_folders.read_command(tmp_path) is None
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- method.x=[a, b]\n- seed=1\n")
    assert run_folders.read_command(tmp_path) == "python unlearn.py 'method.x=[a, b]' seed=1"


def test_the_page_is_one_file_that_no_text_can_break(
    store: ResultsStore, tmp_path: Path, evil: str
):
    path = results_page.write_report(store, store.load(), tmp_path / "new" / "report.html")
    assert path == tmp_path / "new" / "report.html"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2 and evil not in text
    assert not re.search(
        r"(src|href)=\"(?!data:)|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text
    )
    embedded = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert embedded is not None
    assert evil in [r.get("reason") for r in json.loads(embedded[1])["runs"]]


def test_no_rows_are_a_clear_error(store: ResultsStore, tmp_path: Path):
    with pytest.raises(ValueError, match="no results to show: 0 rows"):
        results_page.write_report(store, pd.DataFrame(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_hundreds_of_columns_bring_no_warning(store: ResultsStore):
    """Pandas warns of a frame in many pieces, and warnings are errors here."""
    frame = store.load()
    more = {f"config/{n}": [None if k % 2 else n for k in range(len(frame))] for n in range(300)}
    pieces = [pd.Series(values, name=name, dtype=object) for name, values in more.items()]
    wide = pd.concat([frame, *pieces], axis=1)
    assert len(results_page.collect_content(store, wide, store.root)["runs"]) == len(frame) + 1
