"""The root schemas: every top-level key of the three commands, with its default and its help text."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def _make_option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _make_help(text: str) -> dict[str, str]:
    return {"help": text}


DISCOVERY = (
    "share of the corrupted samples that was found, in (0, 1]; or a detector: discovery=cleanlab"
)
PRECISION = "share of the found that is corrupted, in (0, 1]: the rest are false alarms; null: all"


@dataclass
class Seeds:
    """One seed per purpose."""

    data: int = _make_option("${seed}", "of the corruption: which samples, which labels")
    discovery: int = _make_option("${seed}", "of the order in which corrupted samples are found")
    train: int = _make_option("${seed}", "of the original model")
    unlearn: int = _make_option("${seed}", "of the unlearning")
    mask: int = _make_option("${seed}", "of masks and new channels")


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

    trials: int = _make_option(
        0, "settings of the method to try; above 0: choose its options and run nothing"
    )
    corruptions: list[str] = field(
        default_factory=lambda: ["random_label", "interclass_confusion", "poison"],
        metadata=_make_help("what a setting is scored on, with each of the discoveries"),
    )
    discoveries: list[float] = field(
        default_factory=lambda: [0.1, 0.5, 1.0],
        metadata=_make_help(
            "discovery rates that a setting is scored on; half of the found is held"
        ),
    )
    seed: int = _make_option(100, "of data, models and search: one that no result uses")
    prune: bool = _make_option(False, "end trials that lag behind the median; budgets differ then")
    folder: str = _make_option(
        "${paths.tuning}",
        "gets tuned/<dataset>_<model>_<method>.yaml; conf: later runs in the checkout use it",
    )


@dataclass
class Common:
    """What all commands share."""

    seed: int = _make_option(0, "seed of everything that has no own one, 0 or more")
    seeds: Seeds = field(default_factory=Seeds, metadata=_make_help("one seed per purpose"))
    corrupted: float = _make_option(
        0.05, "corrupted training samples: a share in (0, 1), or a count of 1 or more"
    )
    names: dict[str, str] = field(
        default_factory=dict, metadata=_make_help("what the choices are called in tables")
    )
    validation: float | None = _make_option(
        None, "share of every class held out of the training set, in (0, 1); null: none"
    )
    stack: str = _make_option(
        "auto",
        "models that are trained at once as one program: auto (by the device), off, 2, 3, ...",
    )
    class_order: list[str] | None = field(
        default=None,
        metadata=_make_help(
            "all class names in the order of the model's outputs; null: as they are sorted"
        ),
    )
    dataset: Any = MISSING
    corruption: Any = MISSING
    model: Any = MISSING
    trainer: Trainer = field(default_factory=Trainer, metadata=_make_help("how to compute"))
    paths: Paths = field(default_factory=Paths, metadata=_make_help("where things are"))


@dataclass
class TrainConfig(Common):
    """Of train.py."""

    force: bool = _make_option(False, "train again although the model is in the cache")
    pretraining: Any = MISSING
    logger: Any = MISSING


@dataclass
class UnlearnConfig(Common):
    """Of unlearn.py."""

    discovery: float | None = _make_option(MISSING, DISCOVERY)
    discovery_precision: float | None = _make_option(None, PRECISION)
    force: bool = _make_option(False, "run again although the row is recorded")
    plan: bool = _make_option(False, "say what the sweep will cost, and run nothing")
    status: str = _make_option(
        "false",
        "true: say which cells of the sweep are done, running, failed, collapsed, missing; watch",
    )
    oracle: bool = _make_option(
        False, "tell the method all corrupted samples: an upper bound, marked (IDEAL)"
    )
    checkpoint: str | None = _make_option(
        None, "a model of your own to heal in place of one trained here; see docs/your_model.md"
    )
    save_model: bool = _make_option(True, "keep the healed model as model.pt in the run's folder")
    tune: Tune = field(
        default_factory=Tune, metadata=_make_help("choose the method's options in place of a run")
    )
    pretraining: Any = MISSING
    forget_set: Any = MISSING
    score: Any = field(
        default=None,
        metadata=_make_help("score of memorization that forget sets and methods may use"),
    )
    method: Any = MISSING
    candidates: Any = field(
        default=None, metadata=_make_help("methods that method=rum method.mode=auto chooses from")
    )
    localization: Any = field(
        default=None, metadata=_make_help("which parameters may move; null: all, and no budget")
    )
    localization_name: str | None = _make_option(None, "what the localization is called in tables")
    budget: float | None = _make_option(
        None, "share of the parameters that may move under a localization, in (0, 1]"
    )
    mask_batch_norm: str | None = _make_option(
        None, "running statistics under a localization: update (null), freeze, recalibrate"
    )
    mask_head: str | None = _make_option(
        None, "the head under a localization: always moves, masked, only; null: as the method wants"
    )
    mask_trainable: list[str] | None = field(
        default=None, metadata=_make_help("names of parameters that move besides the mask, with *")
    )
    evaluation: Any = MISSING
    logger: Any = MISSING


@dataclass
class EvaluateConfig(Common):
    """Of evaluate.py."""

    discovery: float | None = _make_option(MISSING, DISCOVERY)
    discovery_precision: float | None = _make_option(None, PRECISION)
    forget_set: Any = MISSING
    pretraining: Any = MISSING
    score: Any = field(
        default=None, metadata=_make_help("score of memorization that forget sets may use")
    )
    scores: Any = field(
        default=None, metadata=_make_help("scores of memorization to compute and to compare")
    )
    diagnose: Any = field(
        default=None,
        metadata=_make_help("look at the original model layer by layer: layers, masks, all"),
    )
    evaluation: Any = MISSING
    checkpoint: str | None = _make_option(
        None, "file to evaluate on the task, or a model to advise on; null: all recorded rows"
    )
    advise: bool = _make_option(
        False,
        "say which methods to use for this corruption (none: unknown) and discovery (or none)",
    )
    by: list[str] = field(
        default_factory=lambda: ["method"], metadata=_make_help("columns to group the table by")
    )
    where: dict[str, Any] = field(
        default_factory=dict,
        metadata=_make_help("only rows whose columns equal these: where.corruption=poison"),
    )
    figure: str = _make_option(
        "auto",
        "comparison, corruptions, demo, heatmap, winners, tradeoff, worst, redirection, localization, "
        "sequence, closeness; auto: "
        "what the rows hold; all; none",
    )
    title: str | None = _make_option(None, "title of the table")
    dashboard: bool = _make_option(
        False, "create a W&B workspace that compares methods over the plane; needs logger=wandb"
    )
    expected: list[Any] = field(
        default_factory=list, metadata=_make_help("claims to compare the results with")
    )
    logger: Any = MISSING


SCHEMAS = {"train": TrainConfig, "unlearn": UnlearnConfig, "evaluate": EvaluateConfig}
