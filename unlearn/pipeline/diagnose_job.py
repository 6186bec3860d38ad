"""Diagnose a network: which layers hold the forget set, and which parts localizations select."""

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unlearn.core import environment
from unlearn.core.job import Job
from unlearn.evaluation.diagnosis.layer_gradients import measure_layer_gradients
from unlearn.evaluation.diagnosis.layer_retraining import BATCH_NORM, retrain_layer
from unlearn.evaluation.diagnosis.layer_rewinding import measure_accuracies, measure_rewinding
from unlearn.evaluation.diagnosis.stop_at_epoch import StopAtEpoch
from unlearn.methods.components.masked_training import compute_mask
from unlearn.models.expansion.expanded import remove_extra_channels
from unlearn.models.layer_groups import example_images, group_by_block, group_by_layer
from unlearn.models.surgery import draw_unrelated_network
from unlearn.pipeline.context import RunContext, build_untrained_network
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.trained_models import build_original_spec, load_or_train, load_original
from unlearn.reporting.figures import canvas, diagnosis
from unlearn.reporting.figures.diagnosis import Diagnosis
from unlearn.reporting.tables import formats
from unlearn.storage.user_checkpoint import match_checkpoint
from unlearn.training.unlearning import LightningFit

log = logging.getLogger(__name__)

GROUPINGS = {"layer": group_by_layer, "block": group_by_block}


def check_diagnosis(options: dict[str, Any], config: dict[str, Any]) -> None:
    """Check the options of a diagnosis before training.

    Args:
        options: Of the config group ``diagnosis``.
        config: Config of the job.

    Raises:
        ValueError: If one is out of range or unavailable with a user's own checkpoint.
    """
    to, epochs = options["rewind_to"], config["pretraining"]["epochs"]
    if options["grouping"] not in GROUPINGS:
        raise ValueError(
            f"diagnosis.grouping must be one of {', '.join(GROUPINGS)}, got {options['grouping']}"
        )
    if isinstance(to, int) and not 1 <= to < epochs:
        raise ValueError(
            f"diagnosis.rewind_to must be an epoch in 1..{epochs - 1} of the original's training "
            f"({epochs} epochs), initial, fresh or a checkpoint file, got {to}"
        )
    if isinstance(to, str) and to not in ("initial", "fresh") and not Path(to).is_file():
        raise ValueError(
            f"diagnosis.rewind_to must be initial, fresh, an epoch or a checkpoint file, got {to}"
        )
    if config["checkpoint"] is not None and (to == "initial" or isinstance(to, int)):
        raise ValueError(
            f"diagnosis.rewind_to must be fresh or a checkpoint file with checkpoint=...: the training "
            f"of that model is unknown; got {to}"
        )
    masks, learning = options.get("masks"), options.get("retraining")
    if masks is not None and masks["budget"] is None:
        raise ValueError("diagnosis.masks.budget must be in (0, 1], got null")
    if learning is not None and learning["batch_norm"] not in BATCH_NORM:
        raise ValueError(
            f"diagnosis.retraining.batch_norm must be one of {', '.join(BATCH_NORM)}, "
            f"got {learning['batch_norm']}"
        )


def load_earlier_parameters(context: RunContext, network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that layers are rewound to, by name, on the network's device.

    Args:
        context: Data of the network.
        network: The diagnosed network, without extra channels.
    """
    to = context.job.config["diagnosis"]["rewind_to"]
    if to == "initial":
        source = remove_extra_channels(build_untrained_network(context))
    elif to == "fresh":
        source = draw_unrelated_network(network, context.job.config["seeds"]["unlearn"])
    elif isinstance(to, int):
        source = remove_extra_channels(_train_to_epoch(context, to))
    else:
        source = copy.deepcopy(network)
        match_checkpoint(Path(to), source, f"model={context.job.names['model']}").load_into(source)
    device = next(network.parameters()).device
    return {name: p.detach().to(device) for name, p in source.named_parameters()}


def _train_to_epoch(context: RunContext, epoch: int) -> nn.Module:
    """Return the original model after an epoch of its training; cached."""
    whole = build_original_spec(context)
    part = replace(
        whole,
        identity=whole.identity | {"until": epoch, "forget": []},
        title=f"training the original model to epoch {epoch}",
        recorders=(StopAtEpoch(epoch),),
    )
    load_or_train(context, part)
    return part.network


def diagnose_job(job: Job) -> float | None:
    """Diagnose the original model of a task, or a checkpoint on it; write tables and a figure."""
    environment.check_torchvision()
    options: dict[str, Any] = job.config["diagnosis"]
    check_diagnosis(options, job.config)
    masks = options.get("masks") or {}
    strategies = {n: job.build(node) for n, node in masks.get("strategies", {}).items()}
    context = load_with_forget_set(job)
    network = remove_extra_channels(load_original(context)[0]).eval()
    request = context.task.request()
    groups = GROUPINGS[options["grouping"]](network, example_images(request))
    before = load_earlier_parameters(context, network)
    size = {name: p.numel() for name, p in network.named_parameters()}
    found = Diagnosis(
        groups=groups,
        parameters={layer: sum(size[n] for n in names) for layer, names in groups.items()},
        whole=measure_accuracies(network, request),
        gradients=measure_layer_gradients(network, request, groups, options["batch_size"]),
        rewound=measure_rewinding(network, before, request, groups),
    )
    for name, strategy in strategies.items():
        limit = masks["budget"] if strategy.needs_budget else None
        found.masks[name] = compute_mask(strategy, network, request, limit)
    if options.get("retraining") is not None:
        _retrain_layers(context, network, before, found)
    _write_diagnosis(job, found)
    return None


def _retrain_layers(
    context: RunContext, network: nn.Module, before: dict[str, Tensor], found: Diagnosis
) -> None:
    """Rewind and retrain each layer; record the curves."""
    options = context.job.config["diagnosis"]["retraining"]
    for number, (layer, names) in enumerate(found.groups.items(), 1):
        title = f"retraining {layer} ({number} of {len(found.groups)})"
        log.info("%s ...", title)
        method = context.job.build(options["method"])
        compute = LightningFit(
            context.engine,
            augment=context.dataset.augment,
            seed=context.job.config["seeds"]["unlearn"],
            title=title,
        )
        _, curve, reason = retrain_layer(
            network, before, context.task.request(), names, method,
            batch_norm=options["batch_norm"], fit=compute,
        )  # fmt: skip
        if reason is not None:
            log.warning("%s ended early: %s", title, reason)
        found.retrained[layer] = curve


def _write_diagnosis(job: Job, found: Diagnosis) -> None:
    """Print the tables, and write tables, curves and figure."""
    folder, names = Path(job.config["paths"]["reports"]), job.names
    context = f"{names['dataset']}, {names['corruption']}, {names['model']}"
    to = job.config["diagnosis"]["rewind_to"]
    titles = {
        "diagnosis": f"{context}: gradients, and accuracy with one layer rewound (to: {to})",
        "diagnosis_shares": "share of each layer's parameters in the masks",
        "diagnosis_masks": "masks: share of all parameters, mean depth (0: input, 1: output)",
        "diagnosis_overlap": "Jaccard overlap of the masks",
    }
    made = diagnosis.make_tables(found)
    for name, table in made.items():
        formats.print_table(table, titles[name])
        formats.save_tables(table, folder / name)
    if found.retrained:
        diagnosis.make_curves(found).to_csv(folder / "diagnosis_retraining.csv", index=False)
    canvas.save_figure(diagnosis.draw_diagnosis(found), folder / "diagnosis")
    log.info("in %s: %s", folder, ", ".join(made))
