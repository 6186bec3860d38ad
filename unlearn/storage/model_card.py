"""The card of a healed model: its data, results and software versions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn.core.files import write_text_atomically
from unlearn.core.job import get_discovery
from unlearn.storage.compliance import make_compliance, to_json
from unlearn.storage.record import RunRecord, mask_environment_secrets, mask_secrets, to_json_value

NAME = "card.json"
FORMAT = 1
MAX_SIZE, MAX_CLASSES = 4096, 100_000  # bounds of what a card may ask to allocate


def make_card(
    record: RunRecord,
    *,
    file: str,
    sha256: str,
    original: Mapping[str, Any],
    inputs: Mapping[str, Any],
    classes: tuple[str, ...],
    summary: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the card of a healed model, JSON values.

    Args:
        record: Row of the run.
        file: The model's file, beside the card.
        sha256: Of that file.
        original: Origin of the model.
        inputs: Channels, size, mean and deviation of its input.
        classes: K names in the order of its outputs.
        summary: What ``method=auto`` says of the result, in sentences.
    """
    config = {k: v for k, v in record.config.items() if k not in ("paths", "logger")}
    config["discovery"] = get_discovery(record.config)
    config = mask_environment_secrets(mask_secrets(config))
    facts = {k: v for k, v in record.metrics.items() if k.startswith("forget_set/")}
    content = {
        "format": FORMAT,
        "run_id": record.run_id,
        "step": record.step,
        "created": record.created,
        "file": file,
        "sha256": sha256,
        "model": config.get("model"),
        "input": dict(inputs),
        "classes": list(classes),
        "original": dict(original),
        "healed_of": {
            "corruption": record.names.get("corruption"),
            "discovery": config["discovery"],
            **{k.removeprefix("forget_set/"): v for k, v in facts.items()},
        },
        "names": dict(record.names),
        "status": record.status,
        "reason": record.reason,
        "metrics": {k: v for k, v in record.metrics.items() if k not in facts},
        "seconds": record.seconds,
        **({"summary": list(summary)} if summary else {}),
        "config": config,
        "versions": dict(record.versions),
        "revision": record.revision,
    }
    if record.config.get("compliance"):
        content["compliance"] = to_json(
            make_compliance(record, origin=_describe_original(original), weights=sha256)
        )
    return {k: to_json_value(v) for k, v in content.items()}


def _describe_original(original: Mapping[str, Any]) -> str:
    if "checkpoint" not in original:
        return "a model that was trained here"
    return f"{original['checkpoint']} (SHA-256 {original['sha256']})"


def write_card(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write ``card.json`` into a run's folder, by rename."""
    text = json.dumps(content, indent=1) + "\n"
    write_text_atomically(folder / NAME, text)
    return folder / NAME


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card in a run's folder.

    Raises:
        ValueError: If it is absent or invalid.
    """
    return read_card_file(folder / NAME)


def read_card_file(path: Path) -> dict[str, Any]:
    """Return the card in a file; see ``read_card``."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"no healed model in {path.parent}: {path.name} is missing") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a valid card: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a card of format {FORMAT}")
    problem = _find_problem(content)
    if problem is not None:
        raise ValueError(f"{path} is not a valid card: {problem}")
    return content


def _find_problem(content: Mapping[str, Any]) -> str | None:
    """Return what makes a card unusable, None if nothing."""
    file, inputs = content.get("file"), content.get("input")
    if not isinstance(file, str) or file in ("", ".", "..") or "/" in file or "\\" in file:
        return f"file must be a name beside the card, got {file!r:.80}"
    for key in ("run_id", "sha256"):
        if not isinstance(content.get(key), str):
            return f"{key} must be text, got {content.get(key)!r:.80}"
    if "model" not in content:
        return "model is missing"
    classes = content.get("classes")
    if not isinstance(classes, list) or len(classes) < 2:
        return "classes must be a list of two or more names"
    if len(classes) > MAX_CLASSES:
        return f"classes must hold at most {MAX_CLASSES} names"
    for key in ("in_channels", "image_size"):
        value = inputs.get(key) if isinstance(inputs, Mapping) else None
        if not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
            return f"input.{key} must be an integer in 1..{MAX_SIZE}, got {value!r:.80}"
    return None
