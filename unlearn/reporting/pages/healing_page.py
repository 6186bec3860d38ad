"""The report of one healed model: what changed, and with which uncertainty.

One HTML file without script, network access or ground truth. C H W image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import torch
from torch import Tensor

from unlearn.core.files import write_text_atomically
from unlearn.core.types import ImageSet
from unlearn.data.task import Task
from unlearn.evaluation.class_losses import compare_classes
from unlearn.evaluation.prediction_change import compare_by_class, compare_shares, known_rows
from unlearn.evaluation.predictions import Predictions
from unlearn.reporting.pages.class_sentences import format_losses, summarize_worst
from unlearn.reporting.pages.compliance_section import format_compliance
from unlearn.reporting.pages.healing_sentences import (
    describe_certainty,
    describe_detector,
    format_points,
    summarize_changes,
)
from unlearn.reporting.pages.thumbnails import SIDE, encode_png, to_viewable
from unlearn.storage.compliance import AuditEntry

SHOWN = 24
"""Pictures per group."""


@dataclass(frozen=True, kw_only=True)
class HealingReport:
    """The data of the report.

    Attributes:
        title: Method and model.
        source: Origin of the original model.
        task: The data; its truth is only used for true labels that the user gave.
        before: Predictions of the original model.
        after: Predictions of the healed model.
        class_names: K names.
        files: File names of the training images; None if they are no files.
        seconds: Duration of the unlearning.
        status: "ok", or why the model counts as collapsed.
        run_id: Id of the run.
        versions: Versions by package.
        found_by: The detector that flagged the list; None if the user gave it.
        metrics: Columns of the row; those of ``method=auto`` make the first lines.
        compliance: Answers to the questions of an audit; empty: no such section.
    """

    title: str
    source: str
    task: Task
    before: Predictions
    after: Predictions
    class_names: Sequence[str]
    files: Sequence[str] | None
    seconds: float
    status: str
    run_id: str
    versions: Mapping[str, str]
    found_by: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    compliance: Sequence[AuditEntry] = ()

    def describe_proof(self) -> list[str]:
        """Return what ``method=auto`` says first; nothing for other methods."""
        from unlearn.reporting.pages.healing_proof import describe_proof

        return describe_proof(self.metrics, self.task, self.before, self.after, self.class_names)


def write_healing(path: Path, healing: HealingReport) -> Path:
    """Write the report, replacing an existing file, and return its path."""
    write_text_atomically(path, healing_page(healing))
    return path


def healing_page(healing: HealingReport) -> str:
    """Return the HTML text, with names of files and classes escaped."""
    folder = resources.files("unlearn.reporting.pages") / "healing"
    html, style = ((folder / n).read_text(encoding="utf-8") for n in ("page.html", "page.css"))
    found = compute_set_shares(healing)
    lost = ""
    if healing.status != "ok":
        lost = f'<p class="bad">The healed model is not usable: {escape(healing.status)}.</p>'
    losses = compare_classes(healing.before, healing.after, healing.task, healing.class_names)
    lost += format_losses(losses)
    proof = [escape(line) for line in healing.describe_proof()]
    told = [
        *proof,
        *describe_detector(healing),
        *summarize_changes(found),
        *summarize_worst(losses),
    ]
    return Template(html).substitute(
        style=style,
        title=escape(healing.title),
        about=escape(
            f"Original: {healing.source}. Unlearning took {healing.seconds:.1f} s. Run "
            f"{healing.run_id}. " + ", ".join(f"{k} {v}" for k, v in healing.versions.items())
        ),
        lost=lost,
        short="".join(f"<li>{line}</li>" for line in told),
        sure="".join(f"<li>{line}</li>" for line in describe_certainty(found)),
        parts=format_table("Set", found),
        classes=format_table("Class", _class_rows(healing)),
        pictures="".join(format_pictures(healing)),
        compliance=format_compliance(healing.compliance),
    )


def compute_set_shares(healing: HealingReport) -> dict[str, dict[str, Any]]:
    """Return shares before and after by their description, in the order of the table."""
    task, before, after = healing.task, healing.before, healing.after
    given = task.train.label.cpu()
    out = {}
    for name, rows in (
        ("Forget set: still labelled as listed", task.forget_indices().cpu()),
        ("Retain set: labelled as given", task.retain_indices().cpu()),
    ):
        a, b = (p.train[rows].argmax(1) == given[rows] for p in (before, after))
        out[name] = compare_shares(a, b)
    known = known_rows(task)
    if len(known):
        true = task.truth.known_label[known]  # type: ignore[index]
        a, b = (p.train[known].argmax(1) == true for p in (before, after))
        out["Forget set: correct, where you gave the true label"] = compare_shares(a, b)
    label = task.test.label.cpu()
    if len(label):
        a, b = (p.test.argmax(1) == label for p in (before, after))
        out["Held-out set: correct"] = compare_shares(a, b)
        same = before.test.argmax(1) == after.test.argmax(1)
        out["Held-out set: prediction unchanged"] = compare_shares(torch.ones_like(same), same)
    return out


def _class_rows(healing: HealingReport) -> dict[str, dict[str, Any]]:
    label = healing.task.test.label.cpu()
    if not len(label):
        return {}
    rows = compare_by_class(healing.before.test, healing.after.test, label, healing.class_names)
    return {row["class"]: row for row in rows}


def format_table(heading: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of shares before and after, with bars and intervals."""
    if not rows:
        return "<p>No held-out set.</p>"
    head = "".join(
        f'<th scope="col">{h}</th>' for h in (heading, "Images", "Before", "After", "", "Change")
    )
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{row["count"]}</td>'
        f"<td>{_share_of(row, 'before')}</td><td>{_share_of(row, 'after')}</td>"
        f'<td class="bars">{_format_bar(row, "before")}{_format_bar(row, "after")}</td>'
        f"<td>{format_points(row)}</td></tr>"
        for name, row in rows.items()
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _share_of(row: Mapping[str, Any], when: str) -> str:
    low, high = row[f"interval_{when}"]
    return f"<b>{row[when]:.1%}</b> <small>{low:.1%} to {high:.1%}</small>"


def _format_bar(row: Mapping[str, Any], when: str) -> str:
    low, high = row[f"interval_{when}"]
    return (
        f'<span class="bar {when}"><i style="width:{100 * row[when]:.2f}%"></i>'
        f'<u style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></u></span>'
    )


def format_pictures(healing: HealingReport) -> list[str]:
    """Return the groups of pictures as HTML: forget set, held-out set, further candidates."""
    task, before, after = healing.task, healing.before, healing.after
    given, label = task.train.label.cpu(), task.test.label.cpu()
    was, now = before.train.argmax(1), after.train.argmax(1)
    found, rest = task.forget_indices().cpu(), task.retain_indices().cpu()
    changed = found[was[found] != now[found]]
    # The healed model contradicts a label that the original model had learned.
    doubted = rest[(was[rest] == given[rest]) & (now[rest] != given[rest])]
    sure = after.train.softmax(1).amax(1)
    doubted = doubted[sure[doubted].argsort(descending=True, stable=True)]
    moved = (before.test.argmax(1) != after.test.argmax(1)).nonzero().flatten()
    return [
        _format_group(healing, "Listed images whose prediction changed", task.train, changed, given,
               before.train, after.train, healing.files, len(found)),
        _format_group(healing, "Held-out images whose prediction changed", task.test, moved, label,
               before.test, after.test, None, len(label)),
        _format_group(healing, "Images outside the list that the healed model now labels differently from "
               "the data, most confident first: candidates for further bad images", task.train, doubted, given,
               before.train, after.train, healing.files, len(rest)),
    ]  # fmt: skip


def _format_group(
    healing: HealingReport,
    title: str,
    data: ImageSet,
    rows: Tensor,
    given: Tensor,
    before: Tensor,
    after: Tensor,
    files: Sequence[str] | None,
    total: int,
) -> str:
    shown = rows[:SHOWN]
    head = f"<h2>{escape(title)}</h2><p>{len(rows)} of {total}"
    head += f", {len(shown)} shown</p>" if len(shown) < len(rows) else "</p>"
    cards = [
        _format_card(healing, image, i, given, before, after, files)
        for image, i in zip(to_viewable(data, shown), shown.tolist(), strict=True)
    ]
    return f'<section>{head}<div class="pictures">{"".join(cards)}</div></section>'


def _format_card(
    healing: HealingReport,
    image: Tensor,
    i: int,
    given: Tensor,
    before: Tensor,
    after: Tensor,
    files: Sequence[str] | None,
) -> str:
    names = healing.class_names
    was, now = (row[i].softmax(0).max(0) for row in (before, after))
    name = escape(files[i] if files else f"image {i}")
    true = healing.task.truth.known_label
    known = ""
    if files is healing.files and true is not None and int(true[i]) >= 0:
        known = f"<span>true: {escape(names[int(true[i])])}</span>"
    return (
        f'<figure><img src="{encode_png(image)}" alt="{name}" title="{name}" width="{SIDE}" '
        f'height="{SIDE}"><figcaption><span class="file">{name}</span>'
        f"<span>given: {escape(names[int(given[i])])}</span>{known}"
        f"<span>{escape(names[int(was.indices)])} {was.values:.0%} → "
        f"<b>{escape(names[int(now.indices)])}</b> {now.values:.0%}</span></figcaption></figure>"
    )
