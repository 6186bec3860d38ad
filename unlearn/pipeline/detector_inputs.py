"""Further inputs of detectors: one misclassified test image, and a trusted set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlearn.core.files import hash_file
from unlearn.core.types import ImageSet
from unlearn.data.corruption.triggers import recover_pixels
from unlearn.data.datasets.image_decoding import MAX_PIXELS, ImageDecoder, limit_pixels
from unlearn.data.trusted_sets.audit import Audit
from unlearn.models.inference import compute_logits
from unlearn.pipeline.context import RunContext
from unlearn.scoring.base import ScoringInputs
from unlearn.scoring.detection.base import Detector


def add_detector_inputs(
    context: RunContext, detector: Detector, subject: ScoringInputs
) -> ScoringInputs:
    """Return the inputs with a query and a trusted set, if the detector declares that it uses them."""
    if detector.needs_query:
        subject = replace(subject, query=choose_query(context, detector, subject))
    if detector.uses_trusted:
        subject = replace(subject, trusted=_draw_trusted(context))
    return subject


def identify_detector_inputs(config: Mapping[str, Any], detector: Detector) -> dict[str, Any]:
    """Return what identifies these inputs in the cache; {} for a detector without any."""
    out: dict[str, Any] = {}
    if detector.needs_query and isinstance(detector.image, str) and Path(detector.image).is_file():
        out["image"] = hash_file(Path(detector.image))
    if detector.uses_trusted and config.get("trusted") is not None:
        out |= {"trusted": config["trusted"], "trusted_seed": config["seeds"]["trusted"]}
    return out


def _draw_trusted(context: RunContext) -> ImageSet | None:
    """Return the job's trusted set, drawn before anything is found; None if there is none.

    Raises:
        ValueError: If it is an audit, which follows the detector.
    """
    source = context.job.node("trusted")
    if source is None:
        return None
    if isinstance(source, Audit):
        raise ValueError(
            "trusted=audit judges what is left after a detector, so the detector cannot use it; "
            "choose trusted=clean_rows, held_out, folder or file"
        )
    nothing = torch.zeros(0, dtype=torch.long)
    task = context.task
    draw = source(
        task.train, task.truth, nothing, dataset=context.dataset, held_out=context.held_out
    )
    return draw.images


def choose_query(context: RunContext, detector: Detector, subject: ScoringInputs) -> ImageSet:
    """Return one test image, labelled as the original model classifies it.

    A file or a row of the test set if the detector names one; else one is drawn that the model gets
    wrong, with the trigger on if there is a backdoor: the draw uses the ground truth.

    Raises:
        ValueError: If the image cannot be read, or no test image is misclassified.
    """
    image, plain = detector.image, context.task.truth.clean_view or context.task.train.view
    if image is None:
        return _draw_query(context, detector, subject)
    if isinstance(image, int) or image.isdecimal():
        if not 0 <= int(image) < len(subject.test):
            raise ValueError(
                f"forget_set.image must be a file or a row in 0..{len(subject.test) - 1} of the "
                f"test set, got {image}"
            )
        pixel = subject.test.rows(torch.tensor([int(image)])).image
    else:
        pixel = _read_image(Path(image), context.task.train.image.shape)
    label = torch.zeros(1, dtype=torch.long)
    one = ImageSet(pixel.cpu(), label, label.clone(), context.task.train.num_classes, plain)
    return replace(one, label=compute_logits(subject.model(), one).argmax(1).cpu())


def _read_image(path: Path, shape: torch.Size) -> Tensor:
    """Return the image of a file, uint8 (1, C, H, H), sized as training images of this shape."""
    decoder = ImageDecoder(shape[-1], shape[1], MAX_PIXELS)
    with limit_pixels(MAX_PIXELS):
        pixel = decoder.decode_file(path)
    if isinstance(pixel, str):
        raise ValueError(f"forget_set.image: cannot read {path}: {pixel or 'no image'}")
    return pixel[None]


def _draw_query(context: RunContext, detector: Detector, subject: ScoringInputs) -> ImageSet:
    """Return a drawn test image that the model gets wrong; see ``choose_query``."""
    truth, test = context.task.truth, subject.test
    stamp = None if truth.trigger is None else truth.trigger.stamp_trigger
    said = compute_logits(subject.model(), test, change=stamp).argmax(1).cpu()
    label = test.label.cpu()
    wrong = said != label
    if truth.trigger is not None:
        wrong &= said == truth.find_targets(label, test.num_classes)
    rows = wrong.nonzero().flatten()
    if not len(rows):
        what = "test image" if stamp is None else "test image with the trigger"
        raise ValueError(
            f"the original model misclassifies no {what}, so there is nothing to explain; "
            "name an image: forget_set.image=..."
        )
    generator = torch.Generator().manual_seed(detector.seed)
    row = rows[torch.randint(len(rows), (1,), generator=generator)]
    one = test.rows(row.to(test.label.device)).to("cpu")
    view = truth.clean_view or test.view
    image = one.image
    if stamp is not None:
        image = recover_pixels(stamp(view(one.image, one.index)), view)
    detector.notes |= {"image": int(row), "predicted": int(said[row])}
    return replace(one, image=image, label=said[row], view=view)
