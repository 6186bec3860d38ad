"""Environment of a run, for its row: versions, revision, memory."""

import functools
import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "numpy")


def _find_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def check_torchvision() -> None:
    """Check that torch and torchvision fit together.

    Raises:
        ValueError: If torchvision cannot be imported with this torch.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        # --upgrade would not help: "2.13.0+cpu" already satisfies torchvision's "torch==2.13.0".
        raise ValueError(
            f"torch {_find_version('torch')} and torchvision {_find_version('torchvision')} do not fit "
            f"({' '.join(str(error).split()) or type(error).__name__}); install both in one "
            "command: pip install --force-reinstall torch torchvision"
        ) from error


def collect_versions() -> dict[str, str]:
    """Return versions by package name."""
    from unlearn import __version__

    return {
        "unlearn": __version__,
        "python": platform.python_version(),
        **{p: _find_version(p) for p in PACKAGES},
    }


@functools.cache
def find_revision() -> str | None:
    """Return the git revision of the checkout that this package is in, or None."""
    folder = Path(__file__).resolve().parents[2]

    def run_git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(run_git("rev-parse", "--show-toplevel")) != folder:
            return None
        return run_git("rev-parse", "HEAD") + ("-dirty" if run_git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_machine(device: str, precision: str) -> dict[str, str | int]:
    """Return what rounding depends on: processor, its instruction set in use, device, threads.

    Args:
        device: Type of torch's device, "cpu" or "cuda".
        precision: Resolved precision of pre-training, as named by Lightning.
    """
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else device
    return {
        "cpu": _find_cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", "default"),
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


@functools.cache
def _find_cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def reset_peak_memory() -> None:
    """Reset the GPU's peak memory; that of the process cannot be reset."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def get_peak_bytes() -> int:
    """Return peak memory: of the GPU since ``reset_peak_memory`` if in use, else of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
