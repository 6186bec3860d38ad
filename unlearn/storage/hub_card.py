"""The README of a healed model on the Hub: what it was healed of, before and after, limits."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from unlearn.storage.compliance import MEASURED, NOTE, name_identifier


def write_model_card(card: Mapping[str, Any], *, name: str, license: str | None) -> str:
    """Return the README in Markdown, with its metadata as YAML.

    Args:
        card: The card of the healed model.
        name: Name of the model.
        license: Identifier of the licence of the weights; None: not stated.
    """
    meta = {
        "library_name": "unlearn",
        "pipeline_tag": "image-classification",
        "tags": ["machine-unlearning", f"unlearning-method-{card['names'].get('method')}"],
        "license": license or "unknown",
    }
    healed = card["healed_of"]
    facts = "\n".join(f"| {key} | {_format(value)} |" for key, value in healed.items())
    return "\n\n".join(
        [
            f"---\n{yaml.safe_dump(meta, sort_keys=False).strip()}\n---",
            f"# {_escape(name)}",
            f"An image classifier ({_escape(card['names'].get('model'))}) that was healed with the "
            f"method `{_escape(card['names'].get('method'))}` of unlearn: the influence of part of "
            "its training data was removed without training it from scratch.",
            "## What it was healed of",
            f"| fact | value |\n| --- | --- |\n{facts}",
            "## Before and after",
            _format_changes(card["metrics"]),
            "## Use",
            f'```python\nimport unlearn\n\nmodel = unlearn.load("hf://{name}")  # model.card has '
            "the facts\n```",
            f"Input: {card['input'].get('in_channels')} channels, {card['input'].get('image_size')} "
            f"pixels, normalized with mean {card['input'].get('mean')} and std "
            f"{card['input'].get('std')}. {len(card['classes'])} classes: "
            f"{', '.join(_escape(c) for c in card['classes'][:20])}"
            f"{', ...' if len(card['classes']) > 20 else ''}.",
            "## Limits",
            "- Unlearning is approximate. What was not found in the training data can still affect "
            "the model.\n- The numbers above hold for the data of the run; they give no guarantee "
            "for other data.\n- This is no proof of deletion: the weights may still carry "
            "information about the removed images.",
            *_format_compliance(card.get("compliance") or ()),
            f"## Licence\n\nWeights: {license or 'not stated by the publisher'}. The original model "
            "and its data may have conditions of their own.",
            f"Run `{card['run_id']}`, {card['created']}; torch {card['versions'].get('torch')}. The "
            f"complete config is in `config.json`.",
        ]
    ) + "\n"  # fmt: skip


def _format_compliance(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the section of an audit: title, table and note; none without entries."""
    if not entries:
        return []
    lines = ["| question | facts | identifiers |", "| --- | --- | --- |"]
    for entry in entries:
        facts = " ".join(_escape(fact).rstrip(".") + "." for fact in entry["facts"])
        named = "; ".join(
            f"{name_identifier(key)}: {_escape(text)}" for key, text in entry["identifiers"].items()
        )
        lines.append(f"| {_escape(entry['question'])} | {facts} | {named} |")
    return ["## Compliance", "\n".join(lines), NOTE]


def _format_changes(metrics: Mapping[str, Any]) -> str:
    lines = []
    for key, text in MEASURED:
        after, before = metrics.get(key), metrics.get(f"{key}_original")
        if after is not None:
            lines.append(f"| {text} (`{key}`) | {_format(before)} | {_format(after)} |")
    if not lines:
        return "Nothing was measured."
    return "\n".join(["| measured | before | after |", "| --- | --: | --: |", *lines])


def _format(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else _escape(value)


def _escape(value: Any) -> str:
    """Return a text that Markdown and HTML show as it is, in one line."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("|", "\\|").replace("`", "'").replace("[", "\\[")
