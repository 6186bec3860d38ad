"""What was done to a model, by the questions of an audit, with identifiers of two catalogues."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unlearn.storage.record import RunRecord

MEASURED = (
    ("healed", "corrupted images classified correctly"),
    ("utility", "clean test accuracy"),
    ("test/accuracy", "clean test accuracy"),
    ("attack_success_rate", "test images with the trigger classified as the attacker's class"),
    ("forget/agreement", "forget set classified as its given label"),
    ("forget/accuracy_known", "forget set classified as its true label"),
    ("retain/agreement", "retain set classified as its given label"),
)
"""Columns of the evidence, with what they are; ``<column>_original`` is the value before."""

NIST = {
    "MEASURE 2.5": "validity, reliability and their limits are documented",
    "MEASURE 2.7": "security and resilience are evaluated and documented",
    "MANAGE 1.3": "responses to risks are planned and documented; here: mitigating",
    "MANAGE 1.4": "residual risks are documented",
    "MANAGE 2.3": "previously unknown risks are responded to and recovered from",
    "MANAGE 4.3": "incidents and errors are tracked and recovery is documented",
}
"""Subcategories of the NIST AI Risk Management Framework 1.0 (NIST AI 100-1), abridged."""

ATLAS = {
    "AML.T0020": "training data poisoning, if the images were planted on purpose",
    "AML.T0043.004": "insert backdoor trigger, if the images carry one",
    "AML.M0007": "mitigation: sanitize training data",
    "AML.M0008": "mitigation: validate AI model",
}
"""Techniques and mitigations of MITRE ATLAS (content of 2026-09)."""

NOTE = (
    "The identifiers of NIST AI RMF 1.0 and MITRE ATLAS name the parts of these catalogues for which "
    "the facts above can serve as evidence. They are no assessment of conformity."
)


@dataclass(frozen=True)
class AuditEntry:
    """An answer to a question of an audit.

    Attributes:
        question: What is asked.
        facts: Sentences.
        identifiers: Identifiers of NIST AI RMF and MITRE ATLAS with what they stand for.
    """

    question: str
    facts: tuple[str, ...]
    identifiers: dict[str, str]


def make_compliance(
    record: RunRecord, *, origin: str, weights: str | None = None
) -> list[AuditEntry]:
    """Return what was found, how, what was removed, evidence, residual risk, and traceability.

    Args:
        record: Row of the run.
        origin: Origin of the original model.
        weights: SHA-256 of the healed model's file; None: not saved.
    """
    return [
        _answer("What was found", _describe_finding(record), "MEASURE 2.7", "AML.T0020", "AML.T0043.004"),
        _answer("How it was found", _describe_discovery(record), "MANAGE 2.3", "AML.M0007"),
        _answer("What was removed", _describe_removal(record, origin), "MANAGE 1.3"),
        _answer("Evidence", describe_changes(record.metrics), "MEASURE 2.5", "MEASURE 2.7", "AML.M0008"),
        _answer("Residual risk", _describe_residue(record), "MANAGE 1.4"),
        _answer("Traceability", _describe_origin(record, weights), "MANAGE 4.3"),
    ]  # fmt: skip


def name_identifier(key: str) -> str:
    """Return an identifier with the catalogue that it is of: NIST or ATLAS."""
    return f"{'NIST' if key in NIST else 'ATLAS'} {key}"


def to_json(entries: list[AuditEntry]) -> list[dict[str, Any]]:
    """Return the entries as JSON values, for the card."""
    return [{**asdict(entry), "facts": list(entry.facts)} for entry in entries]


def describe_changes(metrics: Mapping[str, Any]) -> list[str]:
    """Return a sentence per measured column: what it is, before and after."""
    lines = []
    for key, text in MEASURED:
        after, before = metrics.get(key), metrics.get(f"{key}_original")
        if isinstance(after, int | float):
            was = f"{before:.3f} before, " if isinstance(before, int | float) else ""
            lines.append(f"{text} ({key}): {was}{after:.3f} after")
    return lines or ["Nothing was measured."]


def _answer(question: str, facts: list[str], *identifiers: str) -> AuditEntry:
    return AuditEntry(question, tuple(facts), {key: (NIST | ATLAS)[key] for key in identifiers})


def _get_corruption(record: RunRecord) -> str | None:
    """Return the name of a simulated corruption; None for a user's own data."""
    name = record.names.get("corruption")
    return None if name in (None, "none") else name


def _describe_finding(record: RunRecord) -> list[str]:
    count = record.metrics.get("forget_set/size")
    lines = [f"{'An unknown number of' if count is None else count} training images were listed."]
    corruption = _get_corruption(record)
    if corruption is None:
        lines.append("The record does not state what is wrong with them, nor whether by intention.")
    else:
        lines.append(f"The corruption was simulated ({corruption}), so its extent is known.")
    return lines


def _describe_discovery(record: RunRecord) -> list[str]:
    by, recall = record.metrics.get("discovery/by"), record.metrics.get("discovery/recall")
    lines = []
    if by is not None:
        lines.append(f"By the detector {by}; no person has checked the list.")
    elif _get_corruption(record) is None:
        lines.append("By the user, who gave the list.")
    else:
        lines.append(f"By a simulated discovery (rate {record.config.get('discovery')}).")
    if isinstance(recall, int | float):
        lines.append(f"{recall:.1%} of all corrupted images were found.")
    return lines


def _describe_removal(record: RunRecord, origin: str) -> list[str]:
    return [
        "The influence of the listed images on the model, by the unlearning method "
        f"{record.names.get('method')} in {record.seconds:.1f} s, without training from scratch."
        if record.names.get("method") != "retrain"
        else f"The listed images: the model was trained again without them, in {record.seconds:.1f} s.",
        f"Original model: {origin}.",
        f"Data that the method had access to: {record.access or 'not recorded'}.",
        "The images themselves are not deleted from any storage.",
    ]


def _describe_residue(record: RunRecord) -> list[str]:
    lines = []
    if record.status != "ok":
        lines.append(f"The healed model is not usable: {record.reason or record.status}.")
    recall = record.metrics.get("discovery/recall")
    if not isinstance(recall, int | float) or recall < 1:
        lines.append("Corrupted images that were not found can still affect the model.")
    if "attack_success_rate" not in record.metrics:
        lines.append("No trigger is known, so the success of a backdoor attack was not measured.")
    lines += [
        "Unlearning is approximate: this is no proof of deletion, and the weights may still carry "
        "information about the listed images.",
        "The numbers hold for the data of this run, and give no guarantee for other data.",
    ]
    return lines


def _describe_origin(record: RunRecord, weights: str | None) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    lines = [f"Run {record.run_id}, {record.created}.", f"Software: {versions}."]
    if record.revision:
        lines.append(f"Revision of the code: {record.revision}.")
    if record.data_digest:
        lines.append(f"Digest of images and labels: {record.data_digest}.")
    if weights:
        lines.append(f"SHA-256 of the healed weights: {weights}.")
    return lines
