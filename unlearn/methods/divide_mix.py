"""DivideMix: split the samples by loss, then train two networks semi-supervised on the split.

Li et al., arXiv 2002.07394. Re-implemented. Differs: labelled and unlabelled images come from one
batch in their natural proportion; the first network is returned, not the sum of both.
Shapes: N samples, B batch, K classes, C H W image.
"""

import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch, Forward, ImageSet
from unlearn.methods.components.losses import sample_losses
from unlearn.methods.components.robust_objective import RobustObjective
from unlearn.methods.retrain import RobustRetrain
from unlearn.models.inference import compute_logits
from unlearn.models.surgery import draw_unrelated_network


def fit_clean_probability(loss: Tensor, seed: int) -> Tensor:
    """Return each sample's probability of the component of lower loss, float (N,).

    The losses are scaled to [0, 1]; the mixture has two Gaussians.
    """
    from sklearn.mixture import GaussianMixture

    low, high = loss.min(), loss.max()
    if high - low < 1e-12:
        return torch.ones(len(loss))
    scaled = ((loss - low) / (high - low)).double().cpu().numpy()[:, None]
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ten iterations need not converge
        mixture.fit(scaled)
    assert mixture.means_ is not None
    found = mixture.predict_proba(scaled)[:, int(np.argmin(mixture.means_))]
    return torch.from_numpy(found).float()


def sharpen(probability: Tensor, temperature: float) -> Tensor:
    """Return p^(1 / T), scaled to sum 1 per row, (B, K)."""
    power = probability ** (1 / temperature)
    return power / power.sum(1, keepdim=True)


def guess_targets(
    onehot: Tensor, clean: Tensor, own: Tensor, every: Tensor, temperature: float
) -> Tensor:
    """Return soft targets, (B, K), rows sum to 1.

    Args:
        onehot: Given labels, (B, K).
        clean: Probability that a label is right, (B,); above 0.5 a sample counts as labelled.
        own: Mean prediction of the network over two augmentations, (B, K).
        every: Mean prediction of both networks over two augmentations, (B, K).
        temperature: Of the sharpening.
    """
    weight = clean[:, None]
    refined = weight * onehot + (1 - weight) * own
    return sharpen(torch.where(weight > 0.5, refined, every), temperature)


class DivideMixObjective(RobustObjective):
    """Cross-entropy for both networks at first, then MixMatch on each other's split."""

    peer: nn.Module
    clean: Tensor

    def __init__(
        self, *, warmup_epochs: int, unlabelled_weight: float, ramp_epochs: int,
        temperature: float, mixup: float,
    ) -> None:  # fmt: skip
        """Store the options.

        Args:
            warmup_epochs: Epochs of cross-entropy, at least 1.
            unlabelled_weight: Final weight of the loss on unlabelled images, at least 0.
            ramp_epochs: Epochs after the warm-up until that weight is reached, at least 1.
            temperature: Of the sharpening, above 0.
            mixup: Parameter of the Beta distribution, above 0.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__()
        if min(warmup_epochs, ramp_epochs) < 1:
            raise ValueError(
                f"warmup_epochs and ramp_epochs must be at least 1, got {warmup_epochs} and {ramp_epochs}"
            )
        if unlabelled_weight < 0 or min(temperature, mixup) <= 0:
            raise ValueError(
                "unlabelled_weight must be at least 0, temperature and mixup above 0, got "
                f"{unlabelled_weight}, {temperature}, {mixup}"
            )
        self.warmup_epochs, self.ramp_epochs = warmup_epochs, ramp_epochs
        self.unlabelled_weight, self.temperature, self.mixup = unlabelled_weight, temperature, mixup
        self.warming, self.ramp = True, 0.0

    def start(self, model: nn.Module, data: ImageSet, *, seed: int) -> None:
        """Draw the second network; every label counts as right."""
        super().start(model, data, seed=seed)
        self.peer = draw_unrelated_network(model, seed)
        self.generator = torch.Generator().manual_seed(seed)
        clean = torch.ones(2, int(data.index.max()) + 1)
        self.register_buffer("clean", clean.to(next(model.parameters()).device))

    def start_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Split the samples by the losses of each network, for the other one."""
        self.warming = epoch < self.warmup_epochs
        self.ramp = min((epoch - self.warmup_epochs + 1) / self.ramp_epochs, 1.0)
        if self.warming:
            return
        for number, network in enumerate((self.peer, model)):  # each uses the other's losses
            logits = compute_logits(network, self.data)
            loss = sample_losses(logits, self.data.label.to(logits.device))
            found = fit_clean_probability(loss, self.seed).to(self.clean.device)
            self.clean[number, self.data.index.to(self.clean.device)] = found
            labelled = int((found > 0.5).sum())
            if labelled in (0, len(found)):  # one side is empty: another epoch of warm-up
                self.warming = True

    def compute_loss(self, forward: Forward, batch: Batch) -> Tensor:
        """Return the sum of both networks' losses."""
        if self.warming:
            both = forward(batch.image), self.peer(batch.image)
            return F.cross_entropy(both[0], batch.label) + F.cross_entropy(both[1], batch.label)
        again = self.augment_again(batch)
        with torch.no_grad():
            views = (batch.image, again)
            mean = [
                torch.stack([net(x).float().softmax(1) for x in views]).mean(0)
                for net in (forward, self.peer)
            ]
        every, losses = (mean[0] + mean[1]) / 2, []
        for number, net in enumerate((forward, self.peer)):
            clean = self.clean[number, batch.index]
            onehot = F.one_hot(batch.label, every.shape[1]).float()
            target = guess_targets(onehot, clean, mean[number], every, self.temperature)
            losses.append(self._mixed_loss(net, torch.cat(views), target, clean > 0.5))
        return losses[0] + losses[1]

    def augment_again(self, batch: Batch) -> Tensor:
        """Return the batch's images under another augmentation, (B, C, H, W)."""
        if self.augment is None:
            return batch.image
        place = torch.searchsorted(self.data.index, batch.index.to(self.data.index.device))
        stored = self.data.image[place].to(batch.image.device)
        generator = torch.Generator(stored.device).manual_seed(
            int(torch.randint(2**31, (1,), generator=self.generator))
        )
        return self.data.view(self.augment(stored, generator), batch.index)

    def _mixed_loss(self, net: Forward, image: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
        """Return MixMatch's loss of one network with a penalty for uneven predictions."""
        target, labelled = torch.cat([target, target]), torch.cat([labelled, labelled])
        concentration = torch.full((2,), self.mixup)
        drawn = torch._standard_gamma(concentration, generator=self.generator)  # type: ignore[reportPrivateImportUsage]
        share = float(torch.max(drawn / drawn.sum()))  # Beta from two Gamma variables
        order = torch.randperm(len(image), generator=self.generator).to(image.device)
        logits = net(share * image + (1 - share) * image[order]).float()
        wanted = share * target + (1 - share) * target[order]
        log_p, p = logits.log_softmax(1), logits.softmax(1)
        supervised = -(wanted * log_p).sum(1)[labelled].sum() / labelled.sum().clamp_min(1)
        free = (p - wanted).square().mean(1)[~labelled].sum() / (~labelled).sum().clamp_min(1)
        k = p.shape[1]
        even = -(p.mean(0).clamp_min(1e-8) * k).log().mean()  # KL of uniform and mean prediction
        return supervised + self.unlabelled_weight * self.ramp * free + even

    def describe(self) -> dict[str, float]:
        """Return the share of samples whose labels count as right for the first network."""
        own = self.clean[0, self.data.index.to(self.clean.device)]
        return {"labelled_fraction": (own > 0.5).float().mean().item()}


class DivideMix(RobustRetrain):
    """Train two new networks on the retain set, semi-supervised; return the first."""
