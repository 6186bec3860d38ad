"""Networks as users build them, made ready for training here, and given back as they were.

What changes: half-precision weights become float32, compiled modules and parallel wrappers are
opened, gradient checkpointing is switched off, outputs other than a tensor are reduced to logits.
What cannot be trained is refused in one line. Shapes: B batch, K classes.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

HALVES = (torch.float16, torch.bfloat16)
LOGIT_NAMES = ("logits", "out", "output", "prediction", "predictions", "pred", "scores")
CHECKPOINTING = (
    "grad_checkpointing",
    "gradient_checkpointing",
    "use_checkpoint",
    "memory_efficient",
)
CHECKPOINTING += ("with_cp", "use_gradient_checkpointing")
"""Attributes by which networks of timm, torchvision, transformers and others switch it."""


@dataclass
class Adaptation:
    """What was changed in a network, to be undone by ``restore_network``.

    Attributes:
        notes: One line per change, to be said.
        dtypes: Types by name of parameters and buffers that were of half precision.
        thawed: Whether all parameters were frozen.
        switched: Modules, by name, and their attribute that switched gradient checkpointing on.
    """

    notes: list[str] = field(default_factory=list)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    thawed: bool = False
    switched: list[tuple[str, str]] = field(default_factory=list)


def copy_network(network: nn.Module) -> tuple[nn.Module, Adaptation]:
    """Return a copy of a network that can be trained, and what was changed; see ``adapt_network``.

    Raises:
        ValueError: If it cannot be trained or copied.
    """
    did = Adaptation()
    network = _open_wrappers(network, did, root_only=True)
    _check_trainable(network)
    detach_weights(network)
    try:
        own = copy.deepcopy(network)
    except (TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"{type(network).__name__} cannot be copied: {str(error)[:200]}"
        ) from error
    own, more = adapt_network(own)
    more.notes = did.notes + more.notes
    return own, more


def adapt_network(network: nn.Module) -> tuple[nn.Module, Adaptation]:
    """Return a network that can be trained, and what was changed; in place, save for wrappers.

    Args:
        network: Any classifier, a copy that may be modified.

    Raises:
        ValueError: If it is scripted, quantized or not initialised.
    """
    did = Adaptation()
    network = _open_wrappers(network, did)
    _check_trainable(network)
    detach_weights(network)
    _use_float32(network, did)
    _switch_checkpointing(network, did)
    parameters = list(network.parameters())
    frozen = sum(not p.requires_grad for p in parameters)
    if frozen == len(parameters):
        did.thawed = True
        did.notes.append("all parameters are frozen: all are trained")
        network.requires_grad_(True)
    elif frozen:
        did.notes.append(
            f"{frozen} of {len(parameters)} parameters are frozen and stay as they are"
        )
    return network, did


def restore_network(network: nn.Module, did: Adaptation) -> nn.Module:
    """Undo ``adapt_network``, save for wrappers, in place; return the network."""
    release_logits(network)
    if did.dtypes:
        named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        for name, dtype in did.dtypes.items():
            named[name].data = named[name].data.to(dtype)
    modules = dict(network.named_modules())
    for name, attribute in did.switched:
        setattr(modules[name], attribute, True)
    return network.requires_grad_(False) if did.thawed else network


def _open_wrappers(network: nn.Module, did: Adaptation, *, root_only: bool = False) -> nn.Module:
    """Return the network within compiled modules and parallel wrappers, also inside of it."""
    while (inner := _get_inner(network)) is not None:
        did.notes.append(
            f"{type(network).__name__} is opened: the healed model is the network within"
        )
        network = inner
    for parent in [] if root_only else list(network.modules()):
        for name, child in list(parent.named_children()):
            if (inner := _get_inner(child)) is not None:
                did.notes.append(f"compiled part '{name}' is opened")
                parent._modules[name] = inner
    return network


def _get_inner(module: nn.Module) -> nn.Module | None:
    if isinstance(module, torch.jit.ScriptModule):
        return None
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    name = "module" if isinstance(module, wrappers) else "_orig_mod"
    return module._modules.get(name)


def _check_trainable(network: nn.Module) -> None:
    """Check that a network can be trained.

    Raises:
        ValueError: If not, with the remedy.
    """
    kind = type(network).__name__
    for module in network.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{kind} is a scripted or traced module (torch.jit), which cannot be changed: pass the "
                "network that it was made from, with the same weights"
            )
        if "quantized" in type(module).__module__.split("."):
            raise ValueError(
                f"{kind} is quantized ({type(module).__name__}), and its weights cannot be trained: "
                "pass the network that it was made from"
            )
    for name, p in network.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"'{name}' of {kind} is not initialised: run the network once first")
        if not p.is_floating_point():
            raise ValueError(f"'{name}' of {kind} is {p.dtype}, and cannot be trained")


def detach_weights(network: nn.Module) -> None:
    """Detach tensors that modules compute and keep, such as those of ``nn.utils.weight_norm``.

    Otherwise the network cannot be copied.
    """
    for module in network.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and not value.is_leaf:
                setattr(module, name, value.detach())


def _use_float32(network: nn.Module, did: Adaptation) -> None:
    named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    did.dtypes = {name: value.dtype for name, value in named.items() if value.dtype in HALVES}
    if did.dtypes:
        kinds = ", ".join(sorted({str(d).removeprefix("torch.") for d in did.dtypes.values()}))
        did.notes.append(
            f"weights of type {kinds} are trained as float32 and given back as {kinds}"
        )
        network.float()


def _switch_checkpointing(network: nn.Module, did: Adaptation) -> None:
    for name, module in network.named_modules():
        for attribute in CHECKPOINTING:
            if vars(module).get(attribute) is True:
                setattr(module, attribute, False)
                did.switched.append((name, attribute))
    if did.switched:
        did.notes.append("gradient checkpointing is switched off here")


# Outputs -----------------------------------------------------------------------------------------


def find_logits(out: Any) -> tuple[Tensor, str]:
    """Return the logits (B, K) in an output, and where they were.

    Taken are a tensor itself; of a mapping or an object with fields (``ModelOutput``) the entry named
    ``logits``, ``out``, ..., else its only matrix; of a tuple or list the first matrix, which is the
    main output of networks with auxiliary ones.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(out, Tensor):
        return out, "the output"
    if isinstance(out, Mapping):
        for name in LOGIT_NAMES:
            if isinstance(out.get(name), Tensor):
                return out[name], f"'{name}'"
        matrices = [(k, v) for k, v in out.items() if isinstance(v, Tensor) and v.ndim == 2]
        if len(matrices) == 1:
            return matrices[0][1], f"'{matrices[0][0]}'"
    elif isinstance(out, tuple | list):
        for place, value in enumerate(out):
            if isinstance(value, Tensor) and value.ndim == 2:
                return value, f"entry {place}"
    elif isinstance(logits := getattr(out, "logits", None), Tensor):
        return logits, "'logits'"
    held = list(out) if isinstance(out, Mapping | tuple | list) else ""
    raise ValueError(f"no logits (B, K) in its output {type(out).__name__} {held}".rstrip())


def take_logits(module: nn.Module, args: tuple[Any, ...], out: Any) -> Tensor:
    """Return the logits of an output; a hook of the network."""
    return find_logits(out)[0]


def name_image(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pass the image by the name of the network's first argument; a hook of the network."""
    name = find_image_name(module)
    return ((), {**kwargs, name: args[0]}) if name is not None and args else None


def find_image_name(network: nn.Module) -> str | None:
    """Return the first argument of ``forward`` if it can only be passed by name, else None."""
    first = next(iter(inspect.signature(network.forward).parameters.values()), None)
    return first.name if first is not None and first.kind is first.KEYWORD_ONLY else None


def use_logits(network: nn.Module, image: Tensor) -> list[str]:
    """Make the network return logits alone, in eval and train mode; return what to say about it.

    Args:
        network: Any classifier, on any device; its statistics and random state do not change.
        image: Example input, (B, C, H, W), on the same device.

    Raises:
        ValueError: If an output holds no logits.
    """
    release_logits(network)
    if find_image_name(network) is not None:
        add_hooks(network, ["name_image"])
    outputs = run_both_modes(network, image)
    if all(isinstance(out, Tensor) for out in outputs):
        return []
    add_hooks(network, ["take_logits"])
    told = []
    for mode, out in zip(("", " in training"), outputs, strict=True):
        if not isinstance(out, Tensor):
            told.append(f"{type(out).__name__}{mode}, of which {find_logits(out)[1]} is used")
    return [f"the network returns {' and '.join(told)}"]


def run_both_modes(network: nn.Module, image: Tensor) -> list[Any]:
    """Return the outputs of the network in eval and in train mode; it does not change."""
    trial = copy.deepcopy(network)
    devices = [image.device] if image.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        return [trial.train(mode)(image) for mode in (False, True)]


def list_hooks(network: nn.Module) -> list[str]:
    """Return the names of the hooks that ``use_logits`` added."""
    found = (*network._forward_hooks.values(), *network._forward_pre_hooks.values())
    return [hook.__name__ for hook in found if hook in (take_logits, name_image)]


def add_hooks(network: nn.Module, names: Sequence[str]) -> None:
    """Add hooks by the names of ``list_hooks``."""
    if "name_image" in names:
        network.register_forward_pre_hook(name_image, with_kwargs=True)
    if "take_logits" in names:
        network.register_forward_hook(take_logits)


def release_logits(network: nn.Module) -> None:
    """Remove what ``use_logits`` added."""
    for hooks, own in (
        (network._forward_hooks, take_logits), (network._forward_pre_hooks, name_image),
    ):  # fmt: skip
        for key in [k for k, hook in hooks.items() if hook is own]:
            del hooks[key]
            network._forward_pre_hooks_with_kwargs.pop(key, None)
