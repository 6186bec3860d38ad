"""Output of ``--help`` and ``--cfg job``: every option with its comment from the YAML."""

import dataclasses
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from unlearn.config.command_line import DETECTOR, Arguments
from unlearn.config.composition import compose_config, enable_composition, resolve_config
from unlearn.config.help_layout import (
    describe_rest,
    join_wrapped,
    select_options,
    sort_groups,
    wrap_line,
    wrap_options,
)
from unlearn.config.options import EXPERIMENTS, offered_options, option_names
from unlearn.config.schema import SCHEMAS
from unlearn.config.validation import suggest_names
from unlearn.core.errors import ConfigError

YAML_LINE = re.compile(
    r"^(?P<indent> *)(?P<key>[\w-]+):(?P<value>.*?)(?:(?<=[\s:])# (?P<comment>.*))?$"
)

PREFIXES = {
    "augment": "dataset.augment.",
    "discovery_rate": "",
    "pretraining_defaults": "",
    "method_defaults": "method.",
}
PREFIXES |= {"experiment": ""}
"""Where the values of a group are merged if not under its own name, in the order of merging."""

DESCRIPTIONS = {
    "train": "Pre-train the original model on the corrupted data; stored in the checkpoint cache.",
    "unlearn": "Heal a model that was trained on bad data: load or train the original model, "
    "unlearn with one method, evaluate, record the results.",
    "evaluate": "Evaluate a checkpoint on a task, or summarize all recorded rows in tables and "
    "figures.",
}
EXAMPLES = {
    "train": ["corruption=poison", "dataset=cifar10 corrupted=1000", "--multirun seed=0,1,2"],
    "unlearn": [
        "method=rem corruption=poison discovery=0.5",
        "method=npo method.gamma=0.1 discovery=tenth",
        "--multirun method=rem,npo discovery=0.1,0.5,1.0",
    ],
    "evaluate": [
        "",
        "by=[method,corruption] figure=heatmap",
        "checkpoint=model.pt corruption=poison",
        "advise=true corruption=poison discovery=0.3",
    ],
}


def read_comments(text: str) -> dict[str, str]:
    """Return the trailing comments of a YAML text by dotted path."""
    out: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = YAML_LINE.match(line)
        if not found:
            continue
        indent = len(found["indent"])
        stack = [(i, k) for i, k in stack if i < indent] + [(indent, found["key"])]
        if found["comment"]:
            out[".".join(k for _, k in stack)] = found["comment"].strip()
    return out


def read_option_comments(group: str, option: str, folders: Sequence[str]) -> dict[str, str]:
    """Return the comments of one group's option, inherited ones included, by path in the group."""
    for folder in reversed(folders):
        path = Path(folder) / group / f"{option}.yaml"
        if path.is_file():
            break
    else:
        return {}
    text = path.read_text()
    content = yaml.safe_load(text)
    out: dict[str, str] = {}
    for entry in content.get("defaults", []) if isinstance(content, dict) else []:
        if isinstance(entry, str) and entry != "_self_":
            out |= read_option_comments(group, entry, folders)
        elif isinstance(entry, Mapping):
            for key, value in entry.items():
                source, _, package = str(key).removeprefix("/").partition("@")
                found = read_option_comments(source, str(value), folders)
                out |= {f"{package}.{k}": v for k, v in found.items()}
    return out | read_comments(text)


def collect_schema_comments(schema: Any) -> dict[str, str]:
    """Return the help texts of a schema dataclass by dotted path."""
    out: dict[str, str] = {}
    for field in dataclasses.fields(schema):
        if "help" in field.metadata:
            out[field.name] = field.metadata["help"]
        if dataclasses.is_dataclass(field.type):
            inner = collect_schema_comments(field.type)
            out |= {f"{field.name}.{k}": v for k, v in inner.items()}
    return out


def explain_options(
    name: str, choices: Mapping[str, Any], folders: Sequence[str]
) -> dict[str, str]:
    """Return the comment of every option of a composed config by dotted path."""
    out = collect_schema_comments(SCHEMAS[name])
    ordered = sorted(choices.items(), key=lambda choice: _merge_order(choice[0]))
    for key, option in ordered:
        name, _, package = key.partition("@")
        group = name if name in PREFIXES or package == "_global_" else key
        if option is None or group.startswith("hydra"):
            continue
        found = read_option_comments(group, str(option), folders)
        prefix = PREFIXES.get(group, f"{group}.")
        out |= {f"{prefix}{k}": v for k, v in found.items()}
    return out


def _merge_order(group: str) -> tuple[int, bool]:
    """Return the merge order of a group's values; ``method_defaults`` occurs twice."""
    name, at, _ = group.partition("@")
    return (list(PREFIXES).index(name) if name in PREFIXES else -1, bool(at))


def annotate_yaml(text: str, notes: Mapping[str, str]) -> str:
    """Return a YAML text with the comment of every key that has one."""
    out: list[str] = []
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = YAML_LINE.match(line)
        if found:
            indent = len(found["indent"])
            stack = [(i, k) for i, k in stack if i < indent] + [(indent, found["key"])]
            note = notes.get(".".join(k for _, k in stack))
            line = f"{line}  # {note}" if note else line
        out.append(line)
    return "\n".join(out)


def command_name(name: str) -> str:
    """Return the name of the command: script or installed entry point."""
    program = Path(sys.argv[0]).stem
    return program if program.startswith("unlearn-") else f"python {name}.py"


def format_help(name: str, arguments: Arguments) -> str:
    """Return the help text: usage, groups, and options with default and explanation.

    Raises:
        ConfigError: If the topic of the help is not a group of options.
    """
    with enable_composition(arguments.folders):
        config = compose_config(name, arguments.overrides, arguments.folders)
        choices = config.hydra.runtime.choices
        values = _remove_targets(resolve_config(config))
    notes = explain_options(name, choices, arguments.folders)
    command, topic = command_name(name), arguments.topic
    groups_of_options = [key for key, value in values.items() if isinstance(value, Mapping)]
    if topic not in (None, "all") and topic not in values:
        hint = suggest_names(str(topic), groups_of_options).rstrip("?")
        raise ConfigError(
            f"--help {topic}: not a group of options{hint}; --help all lists every option"
        )
    shown = select_options(values, topic)
    title = {None: "Options (change with key=value)", "all": "All options (change with key=value)"}
    options = [
        f"{title.get(topic, f'Options of {topic} (change with {topic}.key=value)')}:",
        "",
        *wrap_options(annotate_yaml(_format_yaml(shown), notes)),
        *describe_rest(command, values, shown, topic),
    ]
    if topic not in (None, "all"):
        return join_wrapped(options)
    groups = dict(_list_groups(name, choices, arguments.folders))
    return join_wrapped(
        [
            *wrap_line(DESCRIPTIONS[name], ""),
            *("", "Usage:"),
            *(f"  {command} {example}".rstrip() for example in EXAMPLES[name]),
            *("", *FLAGS, ""),
            "Groups (choose with group=option; * is chosen):",
            *sort_groups(groups),
            "",
            *options,
        ]
    )


FLAGS = (
    "  --multirun, -m      one job for each combination of comma-separated values",
    "  --config-dir DIR    your own configs: DIR/method/mine.yaml defines method=mine",
    "  --cfg job           print the composed config and stop",
    "  --help              this text, for the given choices: method=npo --help",
    "  --help all          every option; --help dataset: those of one group",
    "  -sc install=bash    print the tab completion for bash, zsh or fish",
)
"""Flags of all commands."""


def _list_groups(
    command: str, choices: Mapping[str, Any], folders: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield the name of each group that a command offers, and the names of its options."""
    for group, chosen in choices.items():
        names = offered_options(command, group, choices, folders)
        if group.startswith("hydra") or not names:
            continue
        if group == "discovery_rate":
            found = _mark_chosen(option_names("detector", folders), choices[DETECTOR])
            rates = _mark_chosen([n for n in names if n != "none"], chosen)
            yield "discovery", f"a number in (0, 1], {rates}; or a detector: {found}"
        else:
            short = chosen and chosen.removeprefix(f"{EXPERIMENTS[command]}/")
            yield group, _mark_chosen(names, short)


def _mark_chosen(names: Sequence[str], chosen: str | None) -> str:
    return ", ".join(name + "*" * (name == chosen) for name in names)


def _remove_targets(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {k: _remove_targets(v) for k, v in tree.items() if not str(k).startswith("_")}


def format_config(name: str, arguments: Arguments, *, resolve: bool = False) -> str:
    """Return the composed config as annotated YAML, optionally with interpolations resolved."""
    with enable_composition(arguments.folders):
        config = compose_config(name, arguments.overrides, arguments.folders)
        notes = explain_options(name, config.hydra.runtime.choices, arguments.folders)
        if resolve:
            return annotate_yaml(_format_yaml(resolve_config(config)), notes)
        keys = [str(k) for k in config if k != "hydra"]
        content = OmegaConf.to_container(OmegaConf.masked_copy(config, keys))
        return annotate_yaml(_format_yaml(content), notes)


def _format_yaml(content: Any) -> str:
    """Return YAML with one line per value, so that a comment can follow it."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=math.inf)
