"""The root schema, where configs are, and the identity of a resolved config."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _help(text: str) -> dict[str, str]:
    return {"help": text}


DISCOVERY = (
    "share of the corrupted samples that was found, in (0, 1]; or a detector: discovery=cleanlab"
)
PRECISION = "share of the found that is corrupted, in (0, 1]: the rest are false alarms; null: all"


@dataclass
class Seeds:
    """One seed per purpose."""

    data: int = _option("${seed}", "of the corruption: which samples, which labels")
    discovery: int = _option("${seed}", "of the order in which corrupted samples are found")
    train: int = _option("${seed}", "of the original model")
    unlearn: int = _option("${seed}", "of the unlearning")
    mask: int = _option("${seed}", "of masks and new channels")


@dataclass
class Trainer:
    """How to compute."""

    accelerator: str = MISSING
    devices: int = MISSING
    sync_batchnorm: bool = False
    threads: int | None = None
    precision: str = MISSING
    unlearning_precision: str = MISSING
    channels_last: bool = MISSING
    compile: bool = MISSING
    progress: str = MISSING
    checkpoint_seconds: float = MISSING


@dataclass
class Paths:
    """Where things are."""

    root: str = MISSING
    results: str = MISSING
    trainings: str = MISSING
    reports: str = MISSING
    tuning: str = MISSING
    checkpoints: str = MISSING
    data: str = MISSING
    data_cache: str = MISSING


@dataclass
class Tune:
    """A study of a method's hyper-parameters, in place of a run."""

    trials: int = _option(
        0, "settings of the method to try; above 0: choose its options and run nothing"
    )
    corruptions: list[str] = field(
        default_factory=lambda: ["random_label", "interclass_confusion", "poison"],
        metadata=_help("what a setting is scored on, with each of the discoveries"),
    )
    discoveries: list[float] = field(
        default_factory=lambda: [0.1, 0.5, 1.0],
        metadata=_help("discovery rates that a setting is scored on; half of the found is held"),
    )
    seed: int = _option(100, "of data, models and search: one that no result uses")
    prune: bool = _option(False, "end trials that lag behind the median; budgets differ then")
    folder: str = _option(
        "${paths.tuning}",
        "gets tuned/<dataset>_<model>_<method>.yaml; conf: later runs in the checkout use it",
    )


@dataclass
class Common:
    """What all commands share."""

    seed: int = _option(0, "seed of everything that has no own one, 0 or more")
    seeds: Seeds = field(default_factory=Seeds, metadata=_help("one seed per purpose"))
    corrupted: float = _option(
        0.05, "corrupted training samples: a share in (0, 1), or a count of 1 or more"
    )
    names: dict[str, str] = field(
        default_factory=dict, metadata=_help("what the choices are called in tables")
    )
    validation: float | None = _option(
        None, "share of every class held out of the training set, in (0, 1); null: none"
    )
    stack: str = _option(
        "auto",
        "models that are trained at once as one program: auto (by the device), off, 2, 3, ...",
    )
    class_order: list[str] | None = field(
        default=None,
        metadata=_help(
            "all class names in the order of the model's outputs; null: as they are sorted"
        ),
    )
    dataset: Any = MISSING
    corruption: Any = MISSING
    model: Any = MISSING
    trainer: Trainer = field(default_factory=Trainer, metadata=_help("how to compute"))
    paths: Paths = field(default_factory=Paths, metadata=_help("where things are"))


@dataclass
class TrainConfig(Common):
    """Of train.py."""

    force: bool = _option(False, "train again although the model is in the cache")
    pretraining: Any = MISSING
    logger: Any = MISSING


@dataclass
class UnlearnConfig(Common):
    """Of unlearn.py."""

    discovery: float | None = _option(MISSING, DISCOVERY)
    discovery_precision: float | None = _option(None, PRECISION)
    force: bool = _option(False, "run again although the row is recorded")
    plan: bool = _option(False, "say what the sweep will cost, and run nothing")
    status: str = _option(
        "false",
        "true: say which cells of the sweep are done, running, failed, collapsed, missing; watch",
    )
    oracle: bool = _option(
        False, "tell the method all corrupted samples: an upper bound, marked (IDEAL)"
    )
    checkpoint: str | None = _option(
        None, "a model of your own to heal in place of one trained here; see docs/your_model.md"
    )
    save_model: bool = _option(True, "keep the healed model as model.pt in the run's folder")
    tune: Tune = field(
        default_factory=Tune, metadata=_help("choose the method's options in place of a run")
    )
    pretraining: Any = MISSING
    forget_set: Any = MISSING
    score: Any = field(
        default=None, metadata=_help("score of memorization that forget sets and methods may use")
    )
    method: Any = MISSING
    candidates: Any = field(
        default=None, metadata=_help("methods that method=rum method.mode=auto chooses from")
    )
    localization: Any = field(
        default=None, metadata=_help("which parameters may move; null: all, and no budget")
    )
    localization_name: str | None = _option(None, "what the localization is called in tables")
    budget: float | None = _option(
        None, "share of the parameters that may move under a localization, in (0, 1]"
    )
    mask_batch_norm: str | None = _option(
        None, "running statistics under a localization: update (null), freeze, recalibrate"
    )
    mask_head: str | None = _option(
        None, "the head under a localization: always moves, masked, only; null: as the method wants"
    )
    mask_trainable: list[str] | None = field(
        default=None, metadata=_help("names of parameters that move besides the mask, with *")
    )
    evaluation: Any = MISSING
    logger: Any = MISSING


@dataclass
class EvaluateConfig(Common):
    """Of evaluate.py."""

    discovery: float | None = _option(MISSING, DISCOVERY)
    discovery_precision: float | None = _option(None, PRECISION)
    forget_set: Any = MISSING
    pretraining: Any = MISSING
    score: Any = field(
        default=None, metadata=_help("score of memorization that forget sets may use")
    )
    scores: Any = field(
        default=None, metadata=_help("scores of memorization to compute and to compare")
    )
    diagnose: Any = field(
        default=None,
        metadata=_help("look at the original model layer by layer: layers, masks, all"),
    )
    evaluation: Any = MISSING
    checkpoint: str | None = _option(
        None, "file to evaluate on the task, or a model to advise on; null: all recorded rows"
    )
    advise: bool = _option(
        False,
        "say which methods to use for this corruption (none: unknown) and discovery (or none)",
    )
    by: list[str] = field(
        default_factory=lambda: ["method"], metadata=_help("columns to group the table by")
    )
    where: dict[str, Any] = field(
        default_factory=dict,
        metadata=_help("only rows whose columns equal these: where.corruption=poison"),
    )
    figure: str = _option(
        "auto",
        "comparison, demo, heatmap, winners, tradeoff, worst, redirection, localization, "
        "sequence, closeness; auto: "
        "what the rows hold; all; none",
    )
    title: str | None = _option(None, "title of the table")
    dashboard: bool = _option(
        False, "create a W&B workspace that compares methods over the plane; needs logger=wandb"
    )
    expected: list[Any] = field(
        default_factory=list, metadata=_help("claims to compare the results with")
    )
    logger: Any = MISSING


SCHEMAS = {"train": TrainConfig, "unlearn": UnlearnConfig, "evaluate": EvaluateConfig}

UNRELATED = (
    "hydra",
    "paths",
    "logger",
    "force",
    "save_model",
    "plan",
    "status",
    "dashboard",
    "tune",
    "stack",
    "trainer.progress",
    "trainer.checkpoint_seconds",
    "dataset.root",
    "dataset.cache_dir",
)
"""Keys that do not change a result, and so are no part of a run's identity."""

LATER = {"exclude_true": True, "mix": "union", "salient": "largest", "drift": False}
LATER |= {"shared_requests": True}
"""Options of methods and forget sets that came later, with the value that stands for how it was before: at that value
they are no part of a run's identity, so that old results stay where they are."""


CONTENT = ("checkpoint", "forget_set.path")
"""Keys that name a file of the user's: what it holds counts, not where it is."""


def config_dir() -> str:
    """Return the absolute folder of the configs: inside the installed package, or beside it."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain types, without hydra's part and the ranges for tuning."""
    keys = [str(k) for k in config if k != "hydra"]
    content = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    assert isinstance(content, dict)
    for key in ("method", "candidates", "diagnose"):
        _forget_search(content.get(key))
    return {str(k): v for k, v in content.items()}


def _forget_search(node: Any) -> None:
    """Drop the ranges for tuning, those of methods within a method included."""
    if isinstance(node, dict):
        node.pop("search", None)
        for part in node.values():
            _forget_search(part)


def _forget_later(node: Any) -> None:
    """Drop the options of ``LATER`` that say nothing new."""
    if isinstance(node, dict):
        for key, value in LATER.items():
            if node.get(key) == value:
                del node[key]
        for part in node.values():
            _forget_later(part)


def run_id(config: DictConfig) -> str:
    """Return what stands for everything that determines a run's result."""
    return identity(plain(config))


def identity(content: Mapping[str, Any]) -> str:
    """Return a letter and 12 hex digits for a resolved config, ``plain``.

    What is off (null) at the top does not count: a new feature leaves old results where they are.
    """
    content = json.loads(json.dumps({k: v for k, v in content.items() if v is not None}))
    for key in ("method", "candidates", "forget_set"):
        _forget_later(content.get(key))
    own_images = "ImageFolder" in str((content.get("dataset") or {}).get("_target_"))
    for path in UNRELATED:
        if path == "dataset.root" and own_images:  # there, the folder is the data
            continue
        *parents, leaf = path.split(".")
        node: Any = content
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(leaf, None)
    if not (content.get("trainer") or {}).get("sync_batchnorm"):  # as before there was this key
        (content.get("trainer") or {}).pop("sync_batchnorm", None)
    for path in CONTENT:
        *parents, leaf = path.split(".")
        node = functools.reduce(lambda part, key: part.get(key) or {}, parents, content)
        file = Path(str(node.get(leaf)))
        if node.get(leaf) is not None and file.is_file():
            status = file.stat()
            node[leaf] = _digest(str(file.resolve()), status.st_mtime_ns, status.st_size)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digits = hashlib.sha256(text.encode()).hexdigest()[:12]
    return "r" + digits  # a letter: no reader makes it a number


@functools.lru_cache(maxsize=64)
def _digest(path: str, modified: int, size: int) -> str:
    """Return the SHA-256 of a file; a sweep asks for it once per cell."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def register() -> None:
    """Make schemas and the ``run_id`` resolver known; calling it again does nothing new."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        node = OmegaConf.structured(schema)
        if "where" in node:  # columns are not known here: any key may be given, without "+"
            OmegaConf.set_struct(node.where, False)
        store.store(name=f"schema_{name}", node=node)
    OmegaConf.register_new_resolver("run_id", _folder_name, replace=True, use_cache=False)


def _folder_name(_root_: DictConfig) -> str:
    """Return the name of a job's folder; each process of a study has one of its own for the while."""
    studies = bool(OmegaConf.select(_root_, "tune.trials", default=0))
    return (f"tune-{os.getpid()}-" if studies else "") + run_id(_root_)
