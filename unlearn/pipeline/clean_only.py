"""The network that never saw a corrupted sample: trained once per original model, cached."""

import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unlearn.core.job import Job, original_identity
from unlearn.core.words import count_noun
from unlearn.evaluation.recovery import (
    CEILING,
    RECOVERED,
    compare_with_clean_only,
    compute_recovered,
    measure_corrupted,
)
from unlearn.models.expansion.expanded import Expanded
from unlearn.pipeline.context import RunContext, load_context
from unlearn.pipeline.trained_models import (
    TrainingSpec,
    build_spec_without,
    checkpoint_cache,
    load_or_train,
    load_original,
)
from unlearn.storage.checkpoint_marks import CLEAN_ONLY_MARK
from unlearn.storage.record import iterate_leaves
from unlearn.storage.results_store import ResultsStore

log = logging.getLogger(__name__)

PREFIX = "config/"
BUILT = ("dataset", "corruption", "model", "pretraining", "forget_set", "score", "trusted")
KNOWN_CODE = ("unlearn.", "torch.optim.")
"""Prefixes of what a recorded config may name: a row of a store must not run other code."""


def check_clean_only(job: Job) -> None:
    """Check that a clean-only network can be trained.

    Raises:
        ValueError: If ``clean_only`` is set and the recipe of the original is not known.
    """
    if job.config.get("clean_only") and job.config.get("checkpoint") is not None:
        raise ValueError(
            "clean_only=true trains a network by the original's recipe, which is not known of a "
            "checkpoint; leave clean_only out"
        )


def build_clean_only_spec(context: RunContext) -> TrainingSpec:
    """Return the specification of the clean-only network: the original's recipe, no corrupted sample."""
    return build_spec_without(
        context, context.task.corrupted_indices, "the network without corrupted samples"
    )


def measure_clean_only(context: RunContext, original: nn.Module) -> dict[str, float]:
    """Return the facts of the task; {} if nothing is corrupted. The network is cached.

    Args:
        context: Data, ground truth and engine.
        original: The original model, as trained: with the extra channels of example-tied dropout.
    """
    if not context.task.truth.corrupted.any():
        return {}
    new = build_clean_only_spec(context)
    load_or_train(context, new)
    with contextlib.suppress(OSError):  # a read-only cache
        (checkpoint_cache(context.job).model_folder(new.identity) / CLEAN_ONLY_MARK).touch()
    masked = isinstance(original, Expanded) and bool(original.density)
    return compare_with_clean_only(
        measure_corrupted(original, context.task, masked=masked),
        measure_corrupted(new.network, context.task),
    )


def add_clean_only_columns(job: Job) -> int:
    """Add the columns of the clean-only network to recorded rows that lack them.

    No method runs again: the original and the clean-only network come from the cache, or are trained.

    Args:
        job: Job of evaluate.py: the folders of results and checkpoints, and which rows (``where``).

    Returns:
        The number of changed rows.
    """
    store = ResultsStore(Path(job.config["paths"]["results"]))
    frame = store.load(**job.config["where"])
    chosen = [] if frame.empty else sorted(set(frame["run_id"]))
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in (row for run_id in chosen for row in store.read_rows(run_id)):
        config = restore_config(row)
        if row.get(CEILING) is None and _has_task(row, config):
            own = [original_identity(config), *(config.get(k) for k in ("class_order", "trusted"))]
            groups[json.dumps(own, sort_keys=True)].append(row)
    if groups:
        log.info(
            "%s without columns of the clean-only network: %s, trained unless cached",
            count_noun(sum(map(len, groups.values())), "row"), count_noun(len(groups), "network"),
        )  # fmt: skip
    changed = 0
    for group in groups.values():
        try:
            facts = _measure_group(job, group[0])
        except Exception as error:  # rows of older versions lack options
            line = " ".join(str(error).split())[:200]
            log.warning("run %s: no clean-only network: %s", group[0]["run_id"], line)
            continue
        values = {
            (row["run_id"], row["step"]): facts
            | {RECOVERED: compute_recovered(facts, row.get("healed"))}
            for row in group
        }
        store.add_columns(values)
        changed += len(values)
    return changed


def restore_config(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resolved config that a row was made with, nested."""
    config: dict[str, Any] = {}
    for column, value in row.items():
        if column.startswith(PREFIX):
            *parents, leaf = column.removeprefix(PREFIX).split(".")
            node = config
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = _restore_value(value)
    return config


def _restore_value(value: Any) -> Any:
    """Return a value of a config as it was: lists and empty mappings are text in a row."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _has_task(row: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    needed = ("corruption", "corrupted", "model", "pretraining", "dataset", "seeds")
    complete = all(config.get(key) is not None for key in needed)
    return complete and config.get("checkpoint") is None and row.get("corruption") != "none"


def _check_code(config: Mapping[str, Any]) -> None:
    """Check that the config of a row names only code of this package.

    Raises:
        ValueError: If it names other code.
    """
    nodes = {key: config.get(key) for key in BUILT}
    targets = [str(v) for k, v in iterate_leaves(nodes, "").items() if k.endswith("_target_")]
    targets += ["model.path"] * bool((config["model"] or {}).get("path"))
    other = [target for target in targets if not target.startswith(KNOWN_CODE)]
    if other:
        raise ValueError(
            f"its config names code outside of this package ({other[0]}); run it again with "
            "clean_only=true force=true"
        )


def _measure_group(job: Job, row: Mapping[str, Any]) -> dict[str, float]:
    """Return the facts of the task of a row."""
    config = restore_config(row)
    config["paths"] = {**config.get("paths", {}), **job.config["paths"]}
    if "cache_dir" in config["dataset"]:  # of the home of that run, maybe of another machine
        config["dataset"]["cache_dir"] = job.config["paths"]["data_cache"]
    here = {key: job.config["trainer"][key] for key in ("accelerator", "threads")}
    here["progress"] = "false"
    config["trainer"] = {**job.config["trainer"], **config.get("trainer", {}), **here}
    _check_code(config)
    own = Job(config, str(row["run_id"]), job.folder, {"model": str(row.get("model"))}, job.build)
    context = load_context(own, forget=False)
    known = row.get("data/digest")
    if known is not None and known != context.dataset_digest:
        raise ValueError(f"data set {row.get('dataset')} has changed since the row was recorded")
    return measure_clean_only(context, load_original(context)[0])
