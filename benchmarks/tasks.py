"""Simulated tasks with their original models, for comparisons against the hidden truth."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.identity import compute_run_id, to_plain_config
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.orchestration.runner import _instantiate_node
from unlearn.pipeline.context import RunContext, load_context
from unlearn.pipeline.trained_models import load_original, train_without

CORRUPTIONS = ("random_label", "interclass_confusion", "poison")


def make_job(options: Sequence[str], *, seed: int, discovery: float) -> Job:
    """Return the job of a command line."""
    with enable_composition([config_dir()]):
        words = [*options, "trainer.progress=false", f"seed={seed}", f"discovery={discovery}"]
        content = to_plain_config(compose_config("unlearn", words, [config_dir()]))
    run_id = compute_run_id(content)
    folder = Path(content["paths"]["results"]) / run_id
    return Job(content, run_id, folder, content["names"], _instantiate_node)


def load_task(job: Job) -> tuple[RunContext, nn.Module]:
    """Return the context of a job with its forget set, and its original model."""
    context = load_context(job, forget=True)
    return context, remove_extra_channels(load_original(context)[0]).eval()


def load_clean_only(context: RunContext) -> nn.Module:
    """Return a network trained without any corrupted sample, by the original's recipe; cached."""
    return train_without(context, context.task.corrupted_indices, "without corrupted samples")[0]
