"""The root schemas: top-level keys of the three commands, with defaults and help texts."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def _make_option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _make_help(text: str) -> dict[str, str]:
    return {"help": text}


DISCOVERY = (
    "discovery rate: fraction of corrupted samples found, in (0, 1]; or a detector: cleanlab, ..."
)
PRECISION = "fraction of the found samples that is corrupted, in (0, 1]; null: all, no false alarms"


@dataclass
class Seeds:
    """Random seeds, one per purpose."""

    data: int = _make_option("${seed}", "corruption: which samples, which labels")
    discovery: int = _make_option("${seed}", "order in which corrupted samples are found")
    train: int = _make_option("${seed}", "training of the original model")
    unlearn: int = _make_option("${seed}", "unlearning")
    mask: int = _make_option("${seed}", "masks and new channels")
    trusted: int = _make_option("${seed}", "which images the trusted set holds")


@dataclass
class Trainer:
    """Hardware and precision."""

    accelerator: str = MISSING
    devices: int = MISSING
    sync_batchnorm: bool = False
    shard_weights: bool = False
    accumulate: int = 1
    threads: int | None = None
    precision: str = MISSING
    unlearning_precision: str = MISSING
    channels_last: bool = MISSING
    compile: bool = MISSING
    progress: str = MISSING
    checkpoint_seconds: float = MISSING
    evaluation_batch_bytes: int = 64 * 2**20


@dataclass
class Paths:
    """Input and output folders."""

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
    """Hyperparameter tuning of a method, in place of a run."""

    trials: int = _make_option(
        0, "number of trials; above 0: tune the method's hyperparameters instead of running it"
    )
    corruptions: list[str] = field(
        default_factory=lambda: ["random_label", "interclass_confusion", "poison"],
        metadata=_make_help("corruptions that a trial is scored on, with each discovery rate"),
    )
    discoveries: list[float] = field(
        default_factory=lambda: [0.1, 0.5, 1.0],
        metadata=_make_help(
            "discovery rates that a trial is scored on; half of the found samples is held out"
        ),
    )
    seed: int = _make_option(
        100, "seed of data, models and search; reported results must use others"
    )
    prune: bool = _make_option(False, "stop trials that are worse than the median early")
    folder: str = _make_option(
        "${paths.tuning}",
        "output: method_defaults/<method>/<dataset>_<model>.yaml; conf: later runs here use it",
    )


@dataclass
class Common:
    """Options of all commands."""

    seed: int = _make_option(0, "default for every seed below, 0 or more")
    seeds: Seeds = field(
        default_factory=Seeds, metadata=_make_help("random seeds, one per purpose")
    )
    corrupted: float = _make_option(
        0.05, "corrupted training samples: a fraction in (0, 1), or a count of 1 or more"
    )
    names: dict[str, str] = field(
        default_factory=dict, metadata=_make_help("display names of the choices in tables")
    )
    chosen: dict[str, str | None] = field(
        default_factory=dict,
        metadata=_make_help("chosen options, by group; to read, not to set"),
    )
    validation: float | None = _make_option(
        None, "fraction of every class held out of the training set, in (0, 1); null: none"
    )
    stack: str = _make_option(
        "auto",
        "models trained as one program: auto (depends on the device), off, 2, 3, ...",
    )
    class_order: list[str] | None = field(
        default=None,
        metadata=_make_help(
            "all class names in the order of the model's outputs; null: sorted order"
        ),
    )
    init: str | None = _make_option(
        None,
        "file of the weights that trainings start from, such as pre-trained ones; null: random",
    )
    dataset: Any = MISSING
    corruption: Any = MISSING
    model: Any = MISSING
    trainer: Trainer = field(default_factory=Trainer, metadata=_make_help("hardware and precision"))
    paths: Paths = field(default_factory=Paths, metadata=_make_help("input and output folders"))


@dataclass
class TrainConfig(Common):
    """Options of train.py."""

    force: bool = _make_option(False, "train again even if the model is cached")
    pretraining: Any = MISSING
    logger: Any = MISSING


@dataclass
class UnlearnConfig(Common):
    """Options of unlearn.py."""

    discovery: float | None = _make_option(MISSING, DISCOVERY)
    discovery_precision: float | None = _make_option(None, PRECISION)
    force: bool = _make_option(False, "run again even if the result is recorded")
    plan: bool = _make_option(False, "print the cost of the sweep without running it")
    status: str = _make_option(
        "false",
        "true: count done, running, failed, collapsed, missing cells of the sweep; watch: live",
    )
    oracle: bool = _make_option(
        False, "give the method all corrupted samples: an upper bound, marked (IDEAL)"
    )
    checkpoint: str | None = _make_option(
        None, "your own model to heal instead of one trained here; see docs/your_model.md"
    )
    fit_budget: bool | None = _make_option(
        None,
        "with a checkpoint: fit default epochs and batches to the data and the cost of one retraining; "
        "null: true if neither is given",
    )
    save_model: bool = _make_option(True, "save the healed model as model.pt in the run's folder")
    hub: str | None = _make_option(
        None, "publish the healed model: user/name on the Hugging Face Hub, or a folder ./name"
    )
    hub_private: bool = _make_option(True, "hub: only your account sees a new repository")
    hub_license: str | None = _make_option(
        None, "hub: licence of the weights, such as apache-2.0; null: not stated"
    )
    compliance: bool = _make_option(
        False, "add a page for audits to report.html and the card; see docs/your_model.md"
    )
    tune: Tune = field(
        default_factory=Tune, metadata=_make_help("hyperparameter tuning, in place of a run")
    )
    pretraining: Any = MISSING
    forget_set: Any = MISSING
    score: Any = field(
        default=None,
        metadata=_make_help("memorization score that forget sets and methods may use"),
    )
    trusted: Any = field(
        default=None,
        metadata=_make_help("images known to be right, for methods that need them; null: none"),
    )
    method: Any = MISSING
    auto_methods: Any = field(
        default=None, metadata=_make_help("methods among which method=rum method.mode=auto chooses")
    )
    localization: Any = field(
        default=None,
        metadata=_make_help("which parameters may change; null: all, without a budget"),
    )
    localization_name: str | None = _make_option(None, "display name of the localization in tables")
    budget: float | None = _make_option(
        None, "fraction of the parameters that may change under a localization, in (0, 1]"
    )
    mask_batch_norm: str | None = _make_option(
        None, "running statistics under a localization: update (null), freeze, recalibrate"
    )
    mask_head: str | None = _make_option(
        None, "the head under a localization: always, masked, only; null: the method's default"
    )
    mask_trainable: list[str] | None = field(
        default=None, metadata=_make_help("further trainable parameters by name, with *")
    )
    evaluation: Any = MISSING
    clean_only: bool = _make_option(
        False,
        "also train a network without any corrupted sample, once per original: columns memorized, "
        "ceiling, recovered",
    )
    logger: Any = MISSING


@dataclass
class EvaluateConfig(Common):
    """Options of evaluate.py."""

    discovery: float | None = _make_option(MISSING, DISCOVERY)
    discovery_precision: float | None = _make_option(None, PRECISION)
    forget_set: Any = MISSING
    pretraining: Any = MISSING
    score: Any = field(
        default=None, metadata=_make_help("memorization score that forget sets may use")
    )
    compare_scores: Any = field(
        default=None, metadata=_make_help("memorization scores to compute and compare")
    )
    diagnosis: Any = field(
        default=None,
        metadata=_make_help("diagnose the original model layer by layer: layers, masks, all"),
    )
    evaluation: Any = MISSING
    clean_only: bool = _make_option(
        False,
        "add the columns memorized, ceiling and recovered to recorded rows that lack them: trains one "
        "network per original, runs no method again",
    )
    checkpoint: str | None = _make_option(
        None, "checkpoint to evaluate, or to advise on; null: summarize all recorded rows"
    )
    advise: bool = _make_option(
        False,
        "recommend methods for this corruption (none: unknown) and discovery rate (none: unknown)",
    )
    by: list[str] = field(
        default_factory=lambda: ["method"], metadata=_make_help("columns to group the table by")
    )
    where: dict[str, Any] = field(
        default_factory=dict,
        metadata=_make_help("use only rows with these column values: where.corruption=poison"),
    )
    figure: str = _make_option(
        "auto",
        "comparison, corruptions, demo, heatmap, winners, regularity, tradeoff, worst, redirection, "
        "localization, sequence, closeness; auto: "
        "those that fit the rows; all; none",
    )
    title: str | None = _make_option(None, "title of the table")
    dashboard: bool = _make_option(
        False, "create a W&B workspace that compares methods; needs logger=wandb"
    )
    expected: list[Any] = field(
        default_factory=list, metadata=_make_help("published claims to compare the results with")
    )
    runs: list[str] = field(
        default_factory=list,
        metadata=_make_help(
            "command lines of unlearn.py whose rows are compared; missing ones are run"
        ),
    )
    run_options: list[str] = field(
        default_factory=list, metadata=_make_help("further options of all of these command lines")
    )
    run_missing: bool = _make_option(True, "false: compare recorded rows alone, run nothing")
    plan: bool = _make_option(False, "print the cost of these runs without running anything")
    scale: str = _make_option(
        "full", "recipe of a published experiment: full, or its small variant"
    )
    small: dict[str, Any] = field(
        default_factory=dict, metadata=_make_help("what scale=small replaces; to read, not to set")
    )
    cost: str | None = _make_option(None, "stated cost of these runs; printed by plan=true")
    logger: Any = MISSING


SCHEMAS = {"train": TrainConfig, "unlearn": UnlearnConfig, "evaluate": EvaluateConfig}
