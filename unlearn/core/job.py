"""The job that a command runs, and identities of configs; imports nothing heavy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearn.core.files import hash_file
from unlearn.core.source_hash import hash_user_code

ID_FORMAT = 3
"""Format of run ids; raised when the same config gets another id."""

CACHE_FORMAT = 2
"""Format of the keys of cached models; raised when the same identity gets another key."""

NUMBER_FORMATS: dict[str, int] = {}
"""Number by name of a class of this package: raised when the class gives other numbers than before
for the same options, so that recorded rows and cached models are not taken for the new ones."""

LATER_KEYS = {
    "dataset.classes": None,
    "dataset.decode": "cpu",
    "model.pretrained": False,
    "trainer.accumulate": 1,
    "trainer.shard_weights": False,
}
"""Options that were added later, and the value that leaves identities as they were before."""

LOCATION_KEYS = ("root", "path", "cache_dir")  # location of a data set, not content


def original_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved config that determines the original model."""
    held = {} if config.get("validation") is None else {"validation": config["validation"]}
    joined = distributed_identity(config)
    held |= {"together": joined} if joined else {}
    if config.get("init") is not None:
        held["init"] = identify_file(config["init"])
    chosen = ("corruption", "corrupted", "model", "pretraining")
    return {
        **held,
        **{key: drop_later_keys(key, config[key]) for key in chosen},
        "dataset": {
            k: v
            for k, v in drop_later_keys("dataset", config["dataset"]).items()
            if k not in LOCATION_KEYS
        },
        "seeds": {key: config["seeds"][key] for key in ("data", "train", "mask")},
    }


def identify_file(value: str) -> str:
    """Return the hash of a file's content; the value itself if there is none, or it is a hash."""
    return hash_file(Path(value)) if Path(value).is_file() else value


def drop_later_keys(part: str, node: Any) -> Any:
    """Return a top-level ``part`` of a config without ``LATER_KEYS`` at their usual values."""
    if not isinstance(node, Mapping):
        return node
    return {k: v for k, v in node.items() if LATER_KEYS.get(f"{part}.{k}", ...) != v}


def identify_code(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config node for an identity: class names, and hashes of the user's own code.

    ``NUMBER_FORMATS`` of the package's own classes are added where they are not 1.
    """
    extra: dict[str, Any] = {}
    code = hash_user_code(node)
    if code:
        extra["code"] = code
    named = use_class_names(node)
    numbers = {
        name: NUMBER_FORMATS[name] for name in sorted(_list_classes(named) & NUMBER_FORMATS.keys())
    }
    if numbers:
        extra["numbers"] = numbers
    return {**named, **extra}


def _list_classes(node: Any) -> set[str]:
    if isinstance(node, list | tuple):
        return {name for part in node for name in _list_classes(part)}
    if not isinstance(node, Mapping):
        return set()
    return {str(node.get("_target_"))} | {n for part in node.values() for n in _list_classes(part)}


def use_class_names(node: Any) -> Any:
    """Return a config node in which the package's own ``_target_`` paths are class names alone.

    So a class keeps its identity when it moves to another module. Other packages are unchanged.
    """
    if isinstance(node, list | tuple):
        return [use_class_names(part) for part in node]
    if not isinstance(node, Mapping):
        return node
    new = {key: use_class_names(value) for key, value in node.items()}
    if str(new.get("_target_")).startswith("unlearn."):
        new["_target_"] = new["_target_"].rpartition(".")[2]
    return new


def change_seeds(
    config: Mapping[str, Any], parts: Sequence[str], seeds: Mapping[str, int], seed: int
) -> dict[str, Any]:
    """Return a resolved config with other seeds, also in those ``parts`` that refer to them."""

    def change_node(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        return {
            k: seed if k == "seed" and v is not None else change_node(v) for k, v in node.items()
        }

    new = {part: change_node(config[part]) for part in parts}
    return {**config, **new, "seeds": {**config["seeds"], **seeds}}


def distributed_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the parts of a batch train one model, which changes its weights; {} for one part."""
    trainer = config.get("trainer") or {"devices": 1}
    keys = ["devices", "sync_batchnorm"] if trainer["devices"] > 1 else []
    keys += ["shard_weights"] if trainer.get("shard_weights") and keys else []
    keys += ["accumulate"] if trainer.get("accumulate", 1) > 1 else []
    together = config.get("together") or {}  # part of a cached model's identity
    return {key: trainer[key] for key in keys} or dict(together)


def is_listed(config: Mapping[str, Any]) -> bool:
    """Return whether the forget set is a user's list, whose share of the bad samples is unknown."""
    node = config.get("forget_set") or {}
    return str(node.get("_target_")).rpartition(".")[2] == "FromFile"


def get_discovery(config: Mapping[str, Any]) -> float | None:
    """Return the discovery rate; None if it is unknown or a detector chose the forget set."""
    return None if is_listed(config) else config.get("discovery")


def describe_discovery(config: Mapping[str, Any]) -> str:
    """Return the discovery rate or the detector's name as text; "unknown" for a user's list."""
    if is_listed(config):
        return "unknown"
    return str(chosen_option(config, "detector") or config.get("discovery"))


def chosen_option(config: Mapping[str, Any], group: str) -> str | None:
    """Return the name of a group's chosen option; None if there is none."""
    return (config.get("chosen") or {}).get(group)


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        config: The resolved config, plain types.
        run_id: Hash of what determines the result.
        folder: Output folder of the job.
        names: Display names of the choices.
        build: Instantiates a config node that has a ``_target_``.
        brief: Log little, since it is one of many jobs.
        stacked_result: Result of its unlearning if it was part of a stack.
    """

    config: dict[str, Any]
    run_id: str
    folder: Path
    names: Mapping[str, str]
    build: Callable[[Any], Any]
    brief: bool = False
    stacked_result: Any = None
    _built: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def node(self, key: str) -> Any:
        """Return the object of a node of the config, built on first use; None if it is not set."""
        if key not in self._built:
            self._built[key] = self.build(self.config.get(key))
        return self._built[key]
