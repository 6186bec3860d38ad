"""The Python interface: heal a model, load a healed one; same objects as on the command line.

Shapes: N samples, C H W image, K classes.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from unlearn.config.composition import (
    compose_config,
    enable_composition,
    resolve_config,
)
from unlearn.config.identity import compute_run_id
from unlearn.config.registration import config_dir
from unlearn.core.job import Job
from unlearn.data.task import Task
from unlearn.evaluation.evaluator import Row
from unlearn.evaluation.found_next import Suspect, find_suspects
from unlearn.evaluation.predictions import Predictions, predict_task
from unlearn.models.adapted import Adaptation, copy_network, restore_network, use_logits
from unlearn.pipeline.context import RunContext, build_engine, build_method
from unlearn.pipeline.healed_models import load_folder, load_from_hub
from unlearn.pipeline.python_call import compose_call
from unlearn.pipeline.run_record import make_record
from unlearn.pipeline.trusted_set import draw_trusted_set
from unlearn.pipeline.unlearn_job import run_method
from unlearn.pipeline.user_arrays import find_accelerator, read_scale
from unlearn.pipeline.user_data import build_user_data, complete_input
from unlearn.pipeline.user_model import make_healing, warn_lost_classes
from unlearn.pipeline.user_network import (
    build_user_network,
    check_given_model,
    set_initial_weights,
)
from unlearn.reporting.pages.healing_page import HealingReport, write_healing
from unlearn.storage.hub import is_hub_name
from unlearn.storage.record import RunRecord
from unlearn.training.network_trial import try_training

log = logging.getLogger(__name__)

MODEL_SOURCE = "a model passed in Python"


@dataclass(frozen=True)
class Result:
    """Result of ``heal``.

    Attributes:
        model: The healed model, on the device of the given one; None if the loss became NaN.
        record: The row of the run, with its config.
        context: Data, engine and predictions of the original model.
        after: Predictions of the healed model; None if there is none.
    """

    model: Any
    record: RunRecord
    context: RunContext
    after: Predictions | None

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the changes by column; see ``unlearn.evaluation.prediction_change``."""
        return dict(self.record.metrics)

    @property
    def summary(self) -> list[str]:
        """Return what ``method="auto"`` says of the result, in sentences; empty for other methods.

        Expected share of healed images that nobody found, cost in accuracy, what was tried, why it was
        chosen.
        """
        return [] if self.after is None else self._make_report().describe_proof()

    def suggest_next(self) -> list[Suspect]:
        """Return images outside the list to look at next, those most probably bad first."""
        return [] if self.after is None else find_suspects(self.after.train, self.context.task)

    def report(self, path: str | Path = "healed.html", *, compliance: bool = False) -> Path:
        """Write the report, one HTML file, and return its path.

        Args:
            path: Where to write it.
            compliance: Whether it has a page for audits: what was found and how, what was removed,
                evidence, residual risk.

        Raises:
            ValueError: If there is no healed model.
        """
        if self.after is None:
            raise ValueError(f"no healed model to report on: {self.record.reason}")
        return write_healing(Path(path), self._make_report(compliance=compliance))

    def _make_report(self, *, compliance: bool = False) -> HealingReport:
        assert self.after is not None
        healing = make_healing(
            self.context, self.record, self.after, MODEL_SOURCE, compliance=compliance
        )
        title = f"{self.record.names['method']} on {type(self.model).__name__}"
        return replace(healing, title=title)


def heal(
    model: "nn.Module | str | Path | Mapping[str, Tensor]",
    *,
    network: "nn.Module | Callable[[], nn.Module] | str | None" = None,
    forget: Any,
    retain: Any,
    test: Any = None,
    method: str = "auto",
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    init: "nn.Module | str | Path | Mapping[str, Tensor] | None" = None,
    seed: int = 0,
    device: "str | torch.device" = "auto",
) -> Result:
    """Heal a model that was trained on bad data; the given model is not modified.

    Args:
        model: A classifier, images (B, C, H, W) to logits (B, K); or its weights, with ``network``:
            a checkpoint file (state dict, Lightning, safetensors), a state dict, or
            "hf://user/name".
        network: Network of the weights, which stays as it is; or a function without arguments that
            returns one, itself or as "module:function". None if ``model`` is a network, or a model
            of the Hub, whose card names its network.
        forget: The bad data: (images, labels), a ``Dataset`` or a folder; or which of ``retain`` are
            bad: a CSV or text file, a list of file names or ids, ids (n,) as an array or a tensor,
            or a bool mask (N,).
        retain: The other training data, as (images, labels), a ``Dataset``, a folder with a folder
            per class, a CSV table of images, or a folder saved by the package datasets. Images are
            tensors or NumPy arrays (N, C, H, W): floating-point network input, or uint8 with ``mean``
            and ``std``; labels are whole numbers (N,) in 0..K-1.
        test: Held-out data in the same form; None: the folder's test set if there is one.
        method: Name of a method of conf/method: rem, npo, finetune, ...; auto: the one that does best on
            listed images that the methods do not see.
        options: Options of the method, such as {"epochs": 3, "optimizer.lr": 0.01}.
        overrides: Further options, as on the command line: "trainer.threads=2". With
            "paths.checkpoints=folder", finished trials of ``method="auto"`` are kept there, and a call
            that was interrupted continues after them.
        mean: Channel means used in training, of images in [0, 1], (C,).
        std: Channel standard deviations used in training, of images in [0, 1], (C,).
        image_size: Height and width in pixels to which a folder's images are resized; like mean and
            std, it is required for images from files unless the model's card holds it.
        class_names: K names in the order of the outputs.
        init: Weights that the model's training began from, such as pre-trained ones: a file, a state
            dict or a network. Methods that retrain all or part of it start there; None: at random.
        seed: Seed of the unlearning, 0 or more.
        device: auto, cpu, gpu or cuda, or a ``torch.device``.

    Raises:
        ValueError: If an argument is invalid; the message names it.
    """
    mean, std = (read_scale(value, name) for value, name in ((mean, "mean"), (std, "std")))
    model, device = build_user_network(model, network), find_accelerator(device)
    mean, std, image_size = complete_input(model, retain, mean, std, image_size)
    begun = init is not None
    config = compose_call(
        retain, method, options, overrides, seed, device, image_size, mean, std, begun
    )
    job = _make_job(config, Path(tempfile.gettempdir()))
    own, did = copy_network(model)
    set_initial_weights(own, init)
    dataset, rows, truth = build_user_data(job, own, forget, retain, test, mean, std, class_names)
    task = Task(dataset.train, dataset.test, truth, (rows,))
    engine = build_engine(config, dataset.train.image.shape[-2])
    context = RunContext(job, dataset, task, engine, "")
    task, forget_sets, facts = draw_trusted_set(context, (rows,))
    task = replace(task, forget=forget_sets)
    context = replace(context, task=task, forget_set_facts=facts)
    keeps = any(word.startswith("paths.") for word in overrides)
    return _run_heal(context, own, did, next(model.parameters()).device, keeps=keeps)


def _run_heal(
    context: RunContext, network: nn.Module, did: Adaptation, home: torch.device, *, keeps: bool
) -> Result:
    """Return the result of healing ``network``, a copy of the given model, which was on ``home``.

    ``keeps``: finished trials of ``method="auto"`` outlast the call.
    """
    started = time.perf_counter()
    few = next(context.task.train.rows(torch.arange(2)).batches()).image
    notes = did.notes + use_logits(network, few.to(next(network.parameters()).device))
    notes += try_training(network, few, context.engine)
    for note in notes:
        log.info("%s", note)
    network = context.engine.place_model(network).eval()
    check = build_method(context.job)
    if hasattr(check, "check_model"):
        check.check_model(network, few.to(context.engine.device))
    context = replace(context, original_predictions=predict_task(network, context.task))
    check_given_model(context, network)
    with tempfile.TemporaryDirectory() as folder:
        config = context.job.config
        if not keeps:
            config = config | {"paths": config["paths"] | {"checkpoints": f"{folder}/trials"}}
        own = replace(context.job, folder=Path(folder), config=config)
        outcome = run_method(
            replace(context, job=own),
            network,
            seed=context.job.config["seeds"]["unlearn"],
            loggers=[],
        )
    said = None if outcome.model is None else predict_task(outcome.model, context.task)
    facts: Row = {"network/adapted": "; ".join(notes)} if notes else {}
    record = make_record(context, outcome, said, facts, started)
    if said is not None:
        warn_lost_classes(context, said)
    healed = None if outcome.model is None else restore_network(outcome.model.to(home), did)
    return Result(healed, record, context, said)


def load(
    run: str | Path, *, results: str | Path | None = None, trust: Sequence[str] = ()
) -> nn.Module:
    """Return a healed model, in eval mode, with its card as ``.card``.

    Args:
        run: Id or folder of a run; a folder with a published model; or ``hf://user/name`` on the
            Hugging Face Hub, also ``hf://user/name@revision``.
        results: Folder of the runs; None: the command line's default, UNLEARN_HOME or outputs.
        trust: Your own packages whose functions may build the network. Networks of this package,
            torchvision and timm need none; a card that names anything else is refused.

    Raises:
        ValueError: If there is no such model, its file does not match its card, or the card names
            code that is not trusted.
    """
    if is_hub_name(run):
        return load_from_hub(str(run), trust)
    folder = Path(run)
    if not folder.is_dir():
        if results is None:
            with enable_composition([config_dir()]):
                results = resolve_config(compose_config("unlearn", [], [config_dir()]))["paths"][
                    "results"
                ]
        folder = Path(str(results)) / str(run)
    return load_folder(folder, trust)


def _instantiate_node(node: Any) -> Any:
    return instantiate(node, _convert_="all")


def _make_job(config: dict[str, Any], folder: Path) -> Job:
    return Job(config, compute_run_id(config), folder, config["names"], _instantiate_node, True)
