"""What a run of ``method=auto`` gets beyond a request: finished trials, and evidence of methods.

Trials are kept in the cache of trained models, so that a run that was interrupted continues after the
last finished one. Their key holds everything that determines them: the model's weights, the data, the
list, the candidate's options and the seeds.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from unlearn.core.job import Job, distributed_identity
from unlearn.core.stored_images import hash_images, update_hash
from unlearn.methods.auto import Auto
from unlearn.methods.components.trials import Trial, TrialStore
from unlearn.pipeline.context import RunContext
from unlearn.pipeline.trained_models import checkpoint_cache
from unlearn.reporting.tables import advice, frames
from unlearn.reporting.tables.facts import BASELINE, REFERENCE, read_fact, regularity_levels
from unlearn.storage.checkpoint_cache import TrainedModel
from unlearn.storage.results_store import ResultsStore

log = logging.getLogger(__name__)

TENSORS = ("held", "predicted", "shifted")


def equip_auto(method: Auto, context: RunContext, model: nn.Module) -> None:
    """Give ``method=auto`` its store and its evidence."""
    method.store = make_trial_store(context, model)
    method.evidence = collect_evidence(context.job)


def make_trial_store(context: RunContext, model: nn.Module) -> TrialStore:
    """Return a store of trials of a model on the context's forget set."""
    config, cache = context.job.config, checkpoint_cache(context.job)
    who = {
        "trial_of": _hash_model(model),
        "data": context.data_digest or hash_images(context.task.train.image).hex()[:16],
        "labels": _hash_tensors(context.task.train.label),
        "forget": _hash_tensors(context.task.forget_indices()),
        "seeds": {key: config["seeds"][key] for key in ("unlearn", "mask")},
        "precision": str(context.engine.unlearning_precision),
        "together": distributed_identity(config),
        "augment": config["dataset"].get("augment"),
    }

    def get_or_run(identity: Mapping[str, Any], run: Callable[[], Trial]) -> Trial:
        options = config["method"]["candidates"][identity["candidate"]]
        key = who | dict(identity) | {"candidate": options}

        def run_as_model(folder: Path) -> TrainedModel:
            trial = run()
            plain = {k: v for k, v in asdict(trial).items() if k not in TENSORS}
            return TrainedModel({}, {name: getattr(trial, name) for name in TENSORS}, plain)

        stored, cached = cache.get_or_train(key, run_as_model)
        if cached:
            log.info("method=auto: this trial is already finished")
        return Trial(**stored.records, **stored.notes)

    return get_or_run


def _hash_model(model: nn.Module) -> str:
    return _hash_tensors(*model.state_dict().values())


def _hash_tensors(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        update_hash(digest, tensor.detach().cpu().contiguous())
    return digest.hexdigest()[:16]


def collect_evidence(job: Job) -> dict[str, dict[str, float]]:
    """Return the expected healed x utility by method, by level of regularity.

    The user's own rows come first, then the package's table. A simulated task gets the table alone:
    rows of the same task would tell its truth, and a row would depend on the order of a sweep.
    """
    table = advice.load_shipped_plane()
    found = _average(table)
    if job.config.get("checkpoint") is None and job.config["names"]["corruption"] != "none":
        return found
    own = _load_own_rows(Path(job.config["paths"]["results"]))
    for level, values in _average(own).items() if not own.empty else ():
        found[level] = found.get(level, {}) | values
    return found


def _load_own_rows(results: Path) -> pd.DataFrame:
    """Return the means of the user's own simulated rows; empty if there are none."""
    if not results.is_dir():
        return pd.DataFrame()
    rows = ResultsStore(results).load()
    if rows.empty or "healed_utility" not in rows or rows["healed_utility"].isna().all():
        return pd.DataFrame()
    return advice.aggregate_plane(frames.prepare_rows(frames.drop_text_values(rows)))


def _average(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the mean over corruptions and rates, by level of regularity and method."""
    levels = regularity_levels(table)
    ranked = ~read_fact(table, "role").isin([BASELINE, REFERENCE])
    plain = ~table["method"].astype(str).str.contains("(", regex=False)
    table = table[ranked & plain].assign(level=table["corruption"].map(levels))
    found: dict[str, dict[str, float]] = {}
    for (level, name), group in table.dropna(subset=["level"]).groupby(["level", "method"]):
        found.setdefault(str(level), {})[str(name)] = float(group["healed_utility"].mean())
    return found
