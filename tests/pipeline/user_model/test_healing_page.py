"""The report of one healed model: in a real browser, from a file."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unlearn.core.types import ImageSet
from unlearn.data.datasets.in_memory import make_image_set
from unlearn.data.datasets.normalization import Normalize
from unlearn.data.task import Task, Truth
from unlearn.evaluation.predictions import Predictions
from unlearn.reporting.pages.healing_page import (
    HealingReport,
    compute_set_shares,
    healing_page,
    write_healing,
)
from unlearn.reporting.pages.healing_sentences import describe_certainty, summarize_changes
from unlearn.reporting.pages.thumbnails import to_viewable
from unlearn.storage.compliance import ATLAS, NIST, make_compliance
from unlearn.storage.record import RunRecord

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
EVIL = "</figure><script>window.hacked = 1</script>"


def says(label, wrong):
    said = label.clone()
    said[wrong] = (said[wrong] + 1) % 3
    return 3.0 * torch.nn.functional.one_hot(said, 3).float()


def healing(**more) -> HealingReport:
    view = Normalize((0.5,) * 3, (0.5,) * 3)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (90, 3, 12, 12), generator=generator, dtype=torch.uint8)
    label = torch.arange(90) % 3
    train = ImageSet(pixels[:60], label[:60], torch.arange(60), 3, view)
    test = ImageSet(pixels[60:], label[60:], torch.arange(30), 3, view)
    known = torch.full((60,), -1)
    known[0] = 1
    truth = Truth(clean_label=train.label, corrupted=torch.zeros(60).bool(), known_label=known)
    before = says(train.label, [40])
    after = says(train.label, [0, 1, 2, 3, 40, 50])
    a, b = says(test.label, [5]), says(test.label, [5, 6])
    usual = {
        "title": "npo on <net>", "source": "mine.pt", "task": Task(train, test, truth, (torch.arange(10),)),
        "before": Predictions(before, before, a, None), "after": Predictions(after, after, b, None),
        "class_names": ("cat", EVIL, "dog"), "files": tuple(f"cat/{i}.png" for i in range(60)),
        "seconds": 3.2, "status": "ok", "run_id": "r0123", "versions": {"torch": "2"},
    }  # fmt: skip
    return HealingReport(**usual | more)


def test_what_it_says():
    found = compute_set_shares(healing())
    forget = found["Forget set: still labelled as listed"]
    assert (forget["before"], forget["after"], forget["count"]) == (1.0, pytest.approx(0.6), 10)
    assert found["Forget set: correct, where you gave the true label"]["after"] == 1.0
    assert found["Held-out set: correct"]["after"] == pytest.approx(28 / 30)
    text = " ".join(summarize_changes(found))
    assert "<b>100.0%</b> as listed, the healed model <b>60.0%</b>" in text
    assert "not statistically significant" in text  # one of thirty
    told = " ".join(describe_certainty(found))
    assert "is unknown without their true labels" in told
    assert re.search(
        r"With 30 held-out images, a change of accuracy below about [\d.]+ points", told
    )


def test_a_class_that_is_lost_is_said_though_the_accuracy_has_not_changed():
    """One class rises as another falls: overall nothing that could not be chance."""
    made = healing()
    label = made.task.test.label
    was, now = label.clone(), label.clone()
    was[(label == 0).nonzero().flatten()[:8]] = 2
    now[(label == 2).nonzero().flatten()[:8]] = 0
    both = [
        replace(made.before, test=3.0 * torch.nn.functional.one_hot(x, 3).float())
        for x in (was, now)
    ]
    page = healing_page(replace(made, before=both[0], after=both[1]))
    assert "not statistically significant" in page
    assert (
        '<p class="bad">Class dog is almost gone: 100% to 20% of 10 held-out images (-80 ' in page
    )
    assert page.count("Class dog is almost gone") == 2  # also in the summary
    assert 'class="bad"' not in healing_page(healing())
    assert "Class cat changed: 100% to 90% of 10 held-out images" in healing_page(healing())


AUTO = {
    "auto/method": "rem", "auto/tried": "rem 0.86 ± 0.05, npo 0.40 ± 0.10", "auto/score": 0.86,
    "auto/gain": 0.66, "auto/healed": 0.87, "auto/healed_low": 0.64, "auto/healed_high": 0.98,
    "auto/held_out": 32, "auto/cost": 0.95, "auto/left_out": "finetune", "auto/precision": 0.9,
    "auto/listed": 32,
}  # fmt: skip


def test_the_choice_and_its_proof_come_first():
    report = healing(metrics=AUTO, class_names=("ash", EVIL, "dog"))
    share, cost, choice, listed = report.describe_proof()
    assert share.startswith("Of 100 bad images that nobody found, 87 are expected to be healed")
    assert "(90 % interval 64 to 98), judged by 32 held-out predictions" in share
    assert "Held-out accuracy: 96.7% before, 93.3% after (-3.3 points)" in cost
    assert "Worst class: ash, 100.0% before, 90.0% after (-10.0 points, 10 images)" in cost
    assert "Chosen: rem, since its score" in choice and "that of the original 0.20" in choice
    assert "npo 0.40 ± 0.10. Not tried, for want of budget: finetune." in choice
    assert listed.startswith("At least 90% of the list is bad")
    page = healing_page(report)
    assert page.index("87 are expected") < page.index("listed images, the original labelled")
    assert EVIL not in page


def test_what_cannot_be_proved_is_said():
    few = AUTO | {"auto/healed": None, "auto/tried": "", "auto/precision": None, "auto/listed": 5}
    assert "with 5 listed images none could be held out" in healing(metrics=few).describe_proof()[0]
    kept = AUTO | {"auto/method": "original", "auto/score": None, "auto/precision": None}
    lines = healing(metrics=kept).describe_proof()
    assert lines[0].startswith("The original model is returned: no candidate was better")
    assert "since no candidate was better by more than its standard error" in lines[2]
    none = {"auto/method": "original", "method/nothing_to_unlearn": True}
    assert healing(metrics=none).describe_proof()[0].startswith("Nothing was unlearned")
    assert healing().describe_proof() == []  # another method


def test_the_page_holds_everything_and_runs_nothing():
    page = healing_page(healing())
    assert EVIL not in page
    assert "&lt;/figure&gt;&lt;script&gt;" in page
    assert "<script" not in page
    assert page.count('<img src="data:image/png;base64,') == 4 + 1 + 1
    assert "cat/50.png" in page  # outside the list, now labelled differently from the data
    assert "cat/40.png" not in page  # nothing new there
    assert "The healed model is not usable: lost" in healing_page(healing(status="lost"))


def test_images_kept_as_floats_can_be_looked_at():
    image = torch.randn(4, 3, 5, 5)
    data = make_image_set(
        image, torch.zeros(4).long(), num_classes=1, mean=None, std=None, what="x"
    )
    shown = to_viewable(data, torch.tensor([1, 2]))
    assert shown.shape == (2, 3, 5, 5)
    assert (int(shown[0].min()), int(shown[0].max())) == (0, 255)
    assert torch.equal(next(data.batches()).image, image)


def row(**more) -> RunRecord:
    usual = {
        "run_id": "r0123", "step": 0, "names": {"method": "npo", "corruption": "none"}, "config": {},
        "metrics": {"forget_set/size": 10, "forget/agreement_original": 1.0, "forget/agreement": 0.6},
        "status": "ok", "reason": None, "seconds": 3.2, "peak_bytes": 1, "versions": {"torch": "2"},
        "revision": None, "created": "2026-01-01T00:00:00", "access": "forget+retain",
    }  # fmt: skip
    return RunRecord(**usual | more)


def test_the_page_of_an_audit_is_optional_and_answers_each_question():
    assert "Compliance" not in healing_page(healing())
    entries = make_compliance(row(), origin="mine<b>.pt", weights="ab" * 32)
    page = healing_page(healing(compliance=entries))
    said = {entry.question: " ".join(entry.facts) for entry in entries}
    assert list(said) == [
        "What was found", "How it was found", "What was removed", "Evidence", "Residual risk",
        "Traceability",
    ]  # fmt: skip
    assert "10 training images were listed" in said["What was found"]
    assert said["How it was found"] == "By the user, who gave the list."
    assert "by the unlearning method npo in 3.2 s" in said["What was removed"]
    assert "(forget/agreement): 1.000 before, 0.600 after" in said["Evidence"]
    assert "this is no proof of deletion" in said["Residual risk"]
    assert "No trigger is known" in said["Residual risk"]
    assert "ab" * 32 in said["Traceability"] and "r0123" in said["Traceability"]
    assert "mine&lt;b&gt;.pt" in page and "no assessment of conformity" in page
    for key in NIST | ATLAS:
        assert key in page, key


def test_the_audit_tells_a_detector_a_simulation_a_collapse_and_retraining():
    found = {"forget_set/size": 4, "discovery/by": "cleanlab", "discovery/recall": 0.25}
    said = {e.question: " ".join(e.facts) for e in make_compliance(row(metrics=found), origin="x")}
    assert "By the detector cleanlab; no person has checked the list." in said["How it was found"]
    assert "25.0% of all corrupted images were found" in said["How it was found"]
    assert said["Evidence"] == "Nothing was measured."
    simulated = row(
        names={"method": "retrain", "corruption": "poison"}, config={"discovery": 1.0},
        metrics={"discovery/recall": 1.0, "attack_success_rate": 0.5}, status="collapsed", reason="NaN",
    )  # fmt: skip
    said = {e.question: " ".join(e.facts) for e in make_compliance(simulated, origin="x")}
    assert "An unknown number of training images were listed." in said["What was found"]
    assert "simulated (poison)" in said["What was found"]
    assert "simulated discovery (rate 1.0)" in said["How it was found"]
    assert "the model was trained again without them" in said["What was removed"]
    assert "not usable: NaN" in said["Residual risk"]
    assert "not found can still" not in said["Residual risk"]
    assert "No trigger is known" not in said["Residual risk"]


@pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="no chromium or no chromedriver")
def test_in_a_browser(tmp_path: Path):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    audit = make_compliance(row(), origin="mine.pt")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get(
            write_healing(tmp_path / "a" / "report.html", healing(compliance=audit)).as_uri()
        )
        wide = driver.execute_script("return [...document.images].map(i => i.naturalWidth)")
        assert wide == [12] * 6
        assert driver.execute_script("return window.hacked") is None
        assert driver.get_log("browser") == []
        for width in (390, 1400):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            body = driver.execute_script("return document.documentElement.scrollWidth")
            assert body <= width
    finally:
        driver.quit()
