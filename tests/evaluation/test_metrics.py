"""Each metric at its extremes and by hand; failures are reported."""

import functools
from dataclasses import replace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from unlearn.config.registration import config_dir
from unlearn.data.corruption.interclass_confusion import InterclassConfusion
from unlearn.data.corruption.poison import Poison
from unlearn.data.forget_sets.discovered import Discovered
from unlearn.data.task import Task
from unlearn.evaluation import metrics
from unlearn.evaluation.backdoor import compute_backdoor
from unlearn.evaluation.evaluator import evaluate_metrics, find_collapse, get_metric
from unlearn.evaluation.metrics import (
    compute_attack_success,
    compute_headline,
    compute_part_accuracies,
    compute_tow,
    metric,
)
from unlearn.evaluation.predictions import Predictions, predict_task
from unlearn.models.inference import compute_logits

ALL = {
    "headline": compute_headline,
    "parts": compute_part_accuracies,
    "test": metrics.compute_test_accuracy,
    "attack": compute_attack_success,
}

BACKDOOR = {"backdoor": compute_backdoor}


def says(label, k=3):
    return torch.nn.functional.one_hot(label, k).float()


def perfect(task):
    test = says(task.test.label)
    train = says(task.truth.clean_label)
    return Predictions(train, train, test, test if task.truth.trigger else None)


def fooled(task):
    """Right but for the corruption, which it has learned."""
    train, test = says(task.train.label), says(task.test.label)
    target = task.truth.target_class or 0
    triggered = says(torch.full_like(task.test.label, target)) if task.truth.trigger else None
    return Predictions(train, says(task.truth.clean_label), test, triggered)


def with_corruption(clean, kind, count=20):
    train, truth = kind(clean[0], count=count, seed=0)
    found = Discovered(nested=True)(truth, rate=0.5, seed=0)
    return Task(train=train, test=clean[1], truth=truth, forget=found)


@pytest.fixture
def poisoned(clean):
    return with_corruption(
        clean,
        Poison(
            target_class=1, trigger_size=2, corner="top_left", value=None, exclude_target_class=True
        ),
    )


def test_extremes_on_label_noise(task):
    good, bad = (
        evaluate_metrics(ALL, perfect(task), task),
        evaluate_metrics(ALL, fooled(task), task),
    )
    assert good["healed"] == good["utility"] == good["healed_utility"] == 1
    assert good["hidden/accuracy_given"] == good["forget/accuracy_given"] == 0
    assert bad["healed"] == 0
    assert bad["utility"] == 1
    assert bad["hidden/accuracy_given"] == bad["forget/accuracy_given"] == 1
    assert bad["clean/accuracy"] == bad["retain/accuracy_given"] == 1
    assert good["retain/accuracy_given"] == pytest.approx(180 / 190)
    assert good["attack_success_rate"] is None  # no trigger: does not apply


def test_extremes_on_poison(poisoned):
    good, bad = (evaluate_metrics(ALL, p(poisoned), poisoned) for p in (perfect, fooled))
    assert (good["attack_success_rate"], bad["attack_success_rate"]) == (0, 1)
    assert (good["test/fixed"], bad["test/fixed"]) == (1, pytest.approx(1 / 3))
    assert (good["train/accuracy_clean"], bad["train/accuracy_clean"]) == (1, 1)


def test_utility_of_confusion_leaves_out_the_confused_classes(clean):
    task = with_corruption(clean, InterclassConfusion(classes=(0, 1), pick="first"))
    p = perfect(task)
    wrong = says((task.test.label + (task.test.label < 2).long()) % 3)  # 0 -> 1, 1 -> 2
    row = evaluate_metrics(ALL, Predictions(p.train, p.train_clean, wrong, None), task)
    assert row["utility"] == 1
    assert row["utility_full"] == pytest.approx(1 / 3)
    assert row["test/fixed"] == 0


def test_nothing_hidden_has_no_value(clean, task):
    found = task.corrupted_indices
    row = evaluate_metrics(ALL, perfect(task), Task(task.train, task.test, task.truth, (found,)))
    assert row["hidden/accuracy_given"] is None
    assert row["forget/accuracy_true"] == 1


def test_tow_by_hand(task):
    assert compute_tow(perfect(task), task, perfect(task)) == {"tow": 1}
    value = compute_tow(fooled(task), task, perfect(task))["tow"]
    assert value == pytest.approx(0 * (180 / 190))  # forget accuracy 1 against 0
    assert evaluate_metrics({"tow": compute_tow}, perfect(task), task)["tow"] is None


def test_a_failed_metric_is_reported(task, caplog):
    @metric({"broken": "max"})
    def broken(predictions, task, retrained):
        raise ZeroDivisionError("no")

    row = evaluate_metrics({"broken": functools.partial(broken)}, perfect(task), task)
    assert row == {"broken": None, "failed/broken": "ZeroDivisionError: no"}
    assert "broken" in caplog.text


def test_declarations_are_checked():
    with pytest.raises(ValueError, match="max or min"):
        metric({"a": "up"})
    with pytest.raises(ValueError, match="@metric"):
        get_metric(lambda p, t, r: {})


def test_collapse_is_guessing():
    assert find_collapse({"test/accuracy": 0.12}, 10) is not None
    assert find_collapse({"test/accuracy": 0.9}, 10) is None
    assert find_collapse({"test/accuracy": None}, 10) is None
    low = {"test/accuracy": 0.12, "test/accuracy_original": 0.12}
    assert find_collapse(low, 10) is None  # the untouched original
    assert find_collapse(low | {"test/accuracy_original": 0.5}, 10) is not None


def test_predictions_of_triggers(poisoned, network):
    p = predict_task(network, poisoned)
    on = poisoned.truth.corrupted
    assert torch.equal(p.train[~on], p.train_clean[~on])
    assert not torch.equal(p.train[on], p.train_clean[on])
    assert not torch.equal(p.test, p.test_triggered)


def test_confusion_of_the_only_two_classes_has_a_utility(clean):
    two = [
        replace(part.rows(part.label < 2), index=torch.arange(int((part.label < 2).sum())), num_classes=2)
        for part in clean
    ]  # fmt: skip
    task = with_corruption(two, InterclassConfusion(classes=(0, 1), pick="first"))
    train, test = says(task.truth.clean_label, 2), says(task.test.label, 2)
    row = evaluate_metrics(ALL, Predictions(train, train, test, None), task)
    assert row["utility"] == row["utility_full"] == row["healed_utility"] == 1


def test_a_lost_reference_is_a_failed_metric_not_a_lost_row(task, monkeypatch):
    from types import SimpleNamespace

    from unlearn.core.errors import CollapsedError
    from unlearn.pipeline import run_record

    def collapsed(context):
        raise CollapsedError("loss is nan")

    monkeypatch.setattr(run_record, "predict_retrained", collapsed)
    job = SimpleNamespace(config={"evaluation": None}, node=lambda key: ALL | {"tow": compute_tow})
    row = run_record.evaluate_run(SimpleNamespace(task=task, job=job), perfect(task))
    assert row["tow"] is None
    assert "loss is nan" in row["failed/tow"]
    assert row["healed"] == 1


def attacked(clean, name, **options):
    content = OmegaConf.load(f"{config_dir()}/corruption/{name}.yaml")
    return with_corruption(clean, instantiate(OmegaConf.merge(content, options), _convert_="all"))


def predicted(task, triggered, healed=None, original=None, test=None):
    """Right on everything but triggered images."""
    train, plain = says(task.truth.clean_label), says(task.test.label if test is None else test)
    return Predictions(train, train, plain, says(triggered), healed=healed, original=original)


def test_healed_of_a_clean_label_attack_is_not_read_from_right_labels(clean):
    task = attacked(clean, "sig")
    _held, right = task.healed_set()
    bad = predicted(task, torch.zeros_like(task.test.label), healed=says(torch.zeros_like(right)))
    good = predicted(task, task.test.label, healed=says(right))
    assert evaluate_metrics(ALL, bad, task)["healed"] == 0
    assert evaluate_metrics(ALL, good, task)["healed"] == 1


def test_predictions_of_a_clean_label_attack_hold_those_on_other_samples(clean, network):
    task = attacked(clean, "sig")
    held, _right = task.healed_set()
    said = predict_task(network, task).healed
    assert said is not None
    assert said.shape == (20, 3)
    assert torch.equal(said, compute_logits(network, held))
    assert predict_task(network, attacked(clean, "blended")).healed is None


def test_where_triggered_images_go(clean):
    task = attacked(clean, "sig")
    label = task.test.label  # 20 images of each of 0, 1, 2; the target is 0
    bad = predicted(task, torch.zeros_like(label))
    assert evaluate_metrics(BACKDOOR, replace(bad, original=bad), task) == {
        "trigger/recovery": 0, "trigger/other": 0, "trigger/shifted": 0, "der": 0.5,
        "target_class/accuracy": 1, "healed_corrupted": 1,
    }  # fmt: skip
    good = predicted(task, label, original=bad)
    row = evaluate_metrics(BACKDOOR, good, task)
    assert (row["trigger/recovery"], row["der"], row["trigger/other"]) == (1, 1, 0)
    # All triggered images move to class 2, and the target class is lost.
    lost = torch.where(label == 0, 1, label)
    moved = predicted(task, torch.full_like(label, 2), original=bad, test=lost)
    row = evaluate_metrics(BACKDOOR, moved, task)
    assert row["trigger/recovery"] == row["trigger/other"] == row["trigger/shifted"] == 0.5
    assert row["trigger/shifted_to"] == 2
    assert row["target_class/accuracy"] == 0
    assert row["der"] == pytest.approx((1 - 1 / 3 + 1) / 2)
    assert evaluate_metrics(ALL, moved, task)["attack_success_rate"] == 0


def test_success_of_an_attack_from_all_to_all_counts_the_next_class(clean):
    task = attacked(clean, "blended", mapping="all_to_all")
    after = (task.test.label + 1) % 3
    bad = predicted(task, after)
    row = evaluate_metrics(ALL | BACKDOOR, replace(bad, original=bad), task)
    assert (row["attack_success_rate"], row["trigger/recovery"]) == (1, 0)
    assert row["target_class/accuracy"] is None
    fixed = torch.zeros_like(after)
    row = evaluate_metrics(ALL | BACKDOOR, predicted(task, fixed, original=bad), task)
    third = [row[key] for key in ("attack_success_rate", "trigger/other", "trigger/shifted")]
    assert third == pytest.approx([1 / 3] * 3)
    assert row["trigger/shifted_to"] == 0


def test_backdoor_columns_do_not_apply_without_a_trigger(task):
    row = evaluate_metrics(BACKDOOR, replace(perfect(task), original=perfect(task)), task)
    assert set(row.values()) == {None}
