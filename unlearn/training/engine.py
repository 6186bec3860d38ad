"""Setup of the Lightning trainer, shared by pre-training and unlearning."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from unlearn.training.callbacks import EpochProgress
from unlearn.training.distributed import SINGLE_PROCESS, Rank
from unlearn.training.sharding import make_strategy

GRAPHS = 64  # most of one network: phases, modes of layers, sizes of batches


def has_unsafe_convolution(model: nn.Module) -> bool:
    """Return whether a layer of the network must not be computed in channels_last on a CPU.

    Without AVX-512, oneDNN writes past the end of a buffer in the weight gradient of a 1x1
    convolution with a stride and fewer than 8 input channels, as soon as its input or its weight is
    in channels_last. The input's layout comes from the layers before it: the whole network is to
    stay contiguous. Grouped convolutions are not concerned.
    """
    return any(
        set(layer.kernel_size) == {1}
        and max(layer.stride) > 1
        and layer.groups == 1
        and layer.in_channels < 8
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    )


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Device, precision and trainer options; one for all trainings of a run.

    Attributes:
        accelerator: auto, cpu or gpu.
        devices: Number of devices that share pre-training and unlearning.
        precision: Precision of pre-training and of methods without full precision: auto, 32-true,
            bf16-mixed.
        unlearning_precision: Precision of methods with ``full_precision``.
        channels_last: Memory layout of convolutions.
        compile: Run networks through torch.compile.
        progress: Show progress bars.
        checkpoint_seconds: Seconds between resumable pre-training checkpoints.
        image_size: Pixels per side; small images gain nothing from bf16.
        sync_batchnorm: With several devices, batch norm over all of them (GPUs only).
        shard_weights: With several devices, divide the weights in pre-training (FSDP).
        accumulate: Micro-batches that each training batch is split into on each device.
    """

    accelerator: str
    devices: int
    precision: str
    unlearning_precision: str
    channels_last: bool
    compile: bool
    progress: bool
    checkpoint_seconds: float
    image_size: int
    sync_batchnorm: bool = False
    shard_weights: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        """Check the number of devices.

        Raises:
            ValueError: If there are fewer devices, or options exclude each other.
        """
        gpu = self.device.type == "cuda"
        if gpu:
            enable_determinism()
        if gpu and self.devices > torch.cuda.device_count():
            raise ValueError(
                f"trainer.devices must be at most {torch.cuda.device_count()}, the number of GPUs, "
                f"got {self.devices}; with trainer.accelerator=cpu any number is allowed"
            )
        if self.sync_batchnorm and (self.devices == 1 or not gpu):
            raise ValueError(
                "trainer.sync_batchnorm=true needs trainer.devices above 1 and GPUs: torch's "
                f"SyncBatchNorm does not run on a CPU, got {self.devices} on {self.device.type}"
            )

        for key in ("compile", "sync_batchnorm"):
            if self.shard_weights and getattr(self, key):
                raise ValueError(f"trainer=fsdp needs trainer.{key}=false")

    @property
    def device(self) -> torch.device:
        """Device of models and data; the current GPU of a rank."""
        gpu = self.accelerator != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if gpu else "cpu")

    def resolved_precision(self) -> Any:
        """Return the pre-training precision as named by Lightning."""
        if self.precision != "auto":
            return self.precision
        fast = (
            torch.cuda.is_bf16_supported() if self.device.type == "cuda" else _cpu_has_fast_bf16()
        )
        return "bf16-mixed" if fast and self.image_size >= 32 else "32-true"

    def place_model(self, model: nn.Module) -> nn.Module:
        """Return the model on the device, in the chosen memory layout where that is safe."""
        model = model.to(self.device)
        if any(getattr(part, "keep_contiguous", False) for part in model.modules()):
            return model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if self.device.type == "cpu" and has_unsafe_convolution(model):
            return model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return model.to(memory_format=torch.channels_last) if self.channels_last else model  # type: ignore[call-overload]

    def compile_if_enabled(self, model: nn.Module) -> Callable[..., Tensor]:
        """Return the compiled network if ``compile`` is True, else the network itself."""
        if not self.compile:
            return model
        torch.compiler.reset()  # graphs of earlier trainings would count towards the limit
        torch._dynamo.config.recompile_limit = GRAPHS
        return torch.compile(model)

    def build_trainer(
        self,
        *,
        max_epochs: int,
        precision: Any,
        callbacks: Sequence[L.Callback],
        loggers: Sequence[Logger],
        title: str,
        total: int | None,
        rank: Rank = SINGLE_PROCESS,
        joins: bool = True,
        parts: int = 1,
    ) -> L.Trainer:
        """Return a trainer without the defaults that cost time or write files.

        ``rank``: rank of this process, which Lightning joins to the others if ``joins``;
        ``parts``: batches of the loader that Lightning accumulates gradients over.
        """
        bar = [EpochProgress(title, total)] if self.progress and rank.number == 0 else []
        joined: dict[str, Any] = {}
        devices: int | list[int] = rank.count
        if not joins:
            devices = [rank.number] if self.device.type == "cuda" else 1
        elif rank != SINGLE_PROCESS:  # the ranks are already running: nothing is launched
            strategy = make_strategy(rank.count) if self.shard_weights else DDPStrategy()
            joined = {"strategy": strategy, "plugins": [LightningEnvironment()]}
            joined["sync_batchnorm"] = self.sync_batchnorm
        with silence_lightning():
            return L.Trainer(
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                devices=devices,
                precision=precision,
                max_epochs=max_epochs,
                logger=[one for one in loggers if isinstance(one, Logger)] or False,
                callbacks=[*bar, *callbacks],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                log_every_n_steps=1_000_000_000,
                inference_mode=False,
                accumulate_grad_batches=parts,
                profiler=NullProfiler(),
                **joined,
            )

    def fits_memory(self, size: int) -> bool:
        """Return whether ``size`` bytes take at most half of the GPU's free memory."""
        return self.device.type == "cuda" and size <= torch.cuda.mem_get_info()[0] // 2


def enable_determinism() -> None:
    """Make GPU results bit-identical for the same seed, where torch supports it.

    Affects the whole process permanently; CPU results are always deterministic.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")


def _cpu_has_fast_bf16() -> bool:
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Suppress Lightning's messages about deliberate choices."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning")
    levels = [(logging.getLogger(n), logging.getLogger(n).level) for n in names]
    try:
        for logger, _ in levels:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Data are in memory: Lightning's advice on dataloader workers does not apply.
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)


@contextmanager
def use_torch_seed(seed: int) -> Iterator[None]:
    """Seed torch's global state, used by random layers, and restore it afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class NullProfiler(PassThroughProfiler):
    """Profiler without overhead; Lightning calls it dozens of times per step."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        """Return a context that does nothing."""
        return self.nothing


class LeanModule(L.LightningModule):
    """Module with a fast setter for the hook name that Lightning sets dozens of times per step."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the hook name bypasses the lookup of parameters and modules."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
