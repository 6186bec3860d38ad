"""The losses of the methods as one would write them into a bare loop.

Shapes: B batch, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn.core.types import Batch

Parts = dict[str, tuple[Tensor, ...]]
Loss = Callable[[Parts], Tensor]


def hand(name: str, method: Any, model: nn.Module) -> tuple[Loss, Callable[[], None]]:
    """Return a method's loss of one step and what is done after it.

    Args:
        name: Of the method.
        method: Prepared: its frozen networks, labels and numbers are used.
        model: The network in training.
    """
    losses = {
        "gradient_ascent": _ascent, "npo": _npo, "neggrad_plus": _neggrad_plus, "scrub": _scrub,
        "badt": _badt, "random_label": _relabelled, "salun": _relabelled, "rem": _own,
        "l1_sparse": _own,
    }  # fmt: skip
    if name in ("cf_k", "eu_k"):
        for module in method.still:
            module.training = False
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
    loss = losses.get(name, _plain)(method, model)
    return loss, _restoring(method, model) if name == "salun" else (lambda: None)


def _ce(model: nn.Module, part: tuple[Tensor, ...]) -> Tensor:
    return F.cross_entropy(model(part[0]), part[1])


def _plain(method: Any, model: nn.Module) -> Loss:
    return lambda parts: _ce(model, next(iter(parts.values())))


def _ascent(method: Any, model: nn.Module) -> Loss:
    return lambda parts: -_ce(model, parts["forget"])


def _npo(method: Any, model: nn.Module) -> Loss:
    def loss(parts: Parts) -> Tensor:
        image, label, _ = parts["forget"]
        with torch.no_grad():
            before = F.cross_entropy(method.reference(image), label, reduction="none")
        now = F.cross_entropy(model(image), label, reduction="none")
        return -2 / method.beta * F.logsigmoid(method.beta * (now - before)).mean()

    return loss


def _neggrad_plus(method: Any, model: nn.Module) -> Loss:
    beta = method.beta
    return lambda parts: (
        beta * _ce(model, parts["retain"]) - (1 - beta) * _ce(model, parts["forget"])
    )


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    mine, target = (F.log_softmax(x / temperature, 1) for x in (student, teacher))
    return F.kl_div(mine, target, reduction="batchmean", log_target=True) * temperature**2


def _scrub(method: Any, model: nn.Module) -> Loss:
    def loss(parts: Parts) -> Tensor:
        ((name, (image, label, _)),) = parts.items()
        with torch.no_grad():
            teacher = method.teacher(image)
        logits = model(image)
        distance = _divergence(logits, teacher, method.temperature)
        value = F.cross_entropy(logits, label) + method.alpha * distance
        return -value if name == "forget" else value

    return loss


def _badt(method: Any, model: nn.Module) -> Loss:
    def loss(parts: Parts) -> Tensor:
        image, _, index = parts["all"]
        with torch.no_grad():
            good, bad = method.competent(image), method.incompetent(image)
        found = method.held["forgotten"][index]
        return _divergence(model(image), torch.where(found[:, None], bad, good), 1.0)

    return loss


def _relabelled(method: Any, model: nn.Module) -> Loss:
    def loss(parts: Parts) -> Tensor:
        image, label, index = parts["all"]
        new = method.held["new_label"][index]
        return F.cross_entropy(model(image), torch.where(new < 0, label, new))

    return loss


def _restoring(method: Any, model: nn.Module) -> Callable[[], None]:
    parameters = dict(model.named_parameters())
    held = [(parameters[k], ~m, parameters[k].detach().clone()) for k, m in method.salient.items()]

    @torch.no_grad()
    def after() -> None:
        for parameter, still, value in held:
            parameter.copy_(torch.where(still, value, parameter))

    return after


def _own(method: Any, model: nn.Module) -> Loss:
    """Return the method's own loss: the comparison then shows the trainer's share alone."""

    def forward(image: Tensor, index: Tensor | None = None) -> Tensor:
        return model(image, *(() if index is None else (index,))).float()

    return lambda parts: method.loss(
        forward, {name: Batch(part[0], part[1], part[2]) for name, part in parts.items()}
    )
