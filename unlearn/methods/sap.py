"""SAP: project the weights onto the directions of samples that are believed clean.

Kodge et al., arXiv 2403.08618. Re-implemented. Differs: samples of lowest loss by given label, or
the trusted set, never true labels; the scale is chosen on further such samples.
Shapes: B batch, d inputs of a weight, M columns.
"""

import copy
import logging
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from unlearn.core.types import ImageSet, Request
from unlearn.methods.components.input_directions import collect_input_grams, project_weights
from unlearn.methods.components.losses import sample_losses
from unlearn.methods.components.one_shot import OneShot
from unlearn.methods.components.trusted_training import split_trusted
from unlearn.models.inference import compute_logits

log = logging.getLogger(__name__)

SOURCES = ("retain", "trusted")


class SAP(OneShot):
    """Dampen what clean samples do not use, in all convolutions and linear maps."""

    uses_retain_set: ClassVar[bool] = True

    def __init__(
        self, *, source: str, alphas: Sequence[float], samples: int, columns: int,
        batch_size: int, seed: int,
    ) -> None:  # fmt: skip
        """Store the options.

        Args:
            source: "retain": samples of lowest loss per given class; "trusted": the trusted set.
            alphas: Scales to choose from by validation accuracy; a direction with less than about
                1 / alpha of the energy is dampened by more than half.
            samples: Number of samples from the retain set, and as many to validate on.
            columns: Maximum number of inputs per layer.
            batch_size: Images per forward pass.
            seed: Seed of the columns.

        Raises:
            ValueError: If an option is out of range.
        """
        super().__init__(batch_size=batch_size)
        if source not in SOURCES:
            raise ValueError(f"method.source must be one of {', '.join(SOURCES)}, got {source}")
        if not alphas or min(alphas) <= 0:
            raise ValueError(f"method.alphas must be numbers above 0, got {list(alphas)}")
        if samples < 1 or columns < 1:
            raise ValueError(
                f"method.samples and method.columns must be at least 1, got {samples} and {columns}"
            )
        self.needs_trusted = source == "trusted"
        self.alphas, self.samples, self.columns = sorted(alphas), samples, columns
        self.seed = seed

    def edit_model(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the projected model with the highest validation accuracy."""
        if self.needs_trusted:
            fit, validation = split_trusted(request, self.notes)
        else:
            fit, validation = self._select_low_losses(model, request.retain)
        grams = collect_input_grams(
            model, fit, batch_size=self.batch_size, columns=self.columns, seed=self.seed
        )
        original = copy.deepcopy(model.state_dict())
        best, chosen = -1.0, self.alphas[0]
        for alpha in self.alphas if len(self.alphas) > 1 else ():
            model.load_state_dict(original)
            project_weights(model, grams, alpha)
            accuracy = self.measure_accuracy(model, validation)
            if accuracy > best:
                best, chosen = accuracy, alpha
        model.load_state_dict(original)
        project_weights(model, grams, chosen)
        self.notes |= {"alpha": chosen, "projected_layers": len(grams)}
        return model

    def _select_low_losses(self, model: nn.Module, data: ImageSet) -> tuple[ImageSet, ImageSet]:
        """Return the samples of lowest loss per given class, and the next ones to validate on."""
        label = data.label.cpu()
        loss = sample_losses(compute_logits(model, data).cpu(), label)
        count = -(-self.samples // data.num_classes)
        first, second = [], []
        for c in label.unique():
            own = (label == c).nonzero().flatten()
            own = own[loss[own].argsort(stable=True)]
            first.append(own[:count])
            second.append(own[count : 2 * count])
        fit, rest = (
            torch.cat(part).sort().values.to(data.label.device) for part in (first, second)
        )
        self.notes |= {"clean_images": len(fit), "validation_images": len(rest)}
        if not len(rest):
            self.notes["no_validation"] = True
            rest = fit
        return data.rows(fit), data.rows(rest)
