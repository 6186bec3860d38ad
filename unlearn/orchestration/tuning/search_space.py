"""The ranges of a method's ``search:`` list, in Hydra's grammar; imports nothing heavy.

An entry is a Hydra override: ``method.optimizer.lr=tag(log, interval(0.005, 0.8))``,
``schedule@method.schedule=choice(constant, warmup_linear)``, ``method.epochs=range(1, 9)`` or a
plain value, which is the same in every trial.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from unlearn.core.errors import ConfigError

KINDS = "choice(a, b), interval(low, high), range(low, stop, step), tag(log, ...), a value"


class Trial(Protocol):
    """Interface of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> str:
        """Return one of the choices."""
        ...

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int, log: bool) -> int:
        """Return a whole number, both ends included."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, /, *, step: float | None, log: bool
    ) -> float:
        """Return a number, both ends included."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value in every trial; ``key`` may begin with ``+`` and name a package."""

    key: str
    text: str

    def suggest_override(self, trial: Trial) -> str:
        """Return the override."""
        return f"{self.key}={self.text}"


@dataclass(frozen=True)
class Choice:
    """One of several values, each as Hydra writes it."""

    key: str
    options: tuple[str, ...]

    def suggest_override(self, trial: Trial) -> str:
        """Return the override with the value that the trial chose."""
        return f"{self.key}={trial.suggest_categorical(self.key, self.options)}"


@dataclass(frozen=True)
class IntRange:
    """A whole number, both ends included."""

    key: str
    low: int
    high: int
    step: int
    log: bool

    def suggest_override(self, trial: Trial) -> str:
        """Return the override with the number that the trial chose."""
        value = trial.suggest_int(self.key, self.low, self.high, step=self.step, log=self.log)
        return f"{self.key}={value}"


@dataclass(frozen=True)
class FloatRange:
    """A number of three digits, both ends included; ``step`` is None for a continuous range."""

    key: str
    low: float
    high: float
    step: float | None
    log: bool

    def suggest_override(self, trial: Trial) -> str:
        """Return the override with the trial's number, rounded to three digits."""
        value = trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)
        return f"{self.key}={min(self.high, max(self.low, float(f'{value:.3g}'))):g}"


Range = Constant | Choice | IntRange | FloatRange


def parse_range(entry: str) -> Range:
    """Return the range of an entry of a ``search:`` list.

    Raises:
        ConfigError: If it is none of the kinds, or an end of an interval is wrong.
    """
    # Hydra's choice() refuses null, its other spelling a,b does not.
    plain = re.sub(r"^([^=]+)=\s*choice\((.+)\)\s*$", r"\1=\2", entry)
    try:
        override = OverridesParser.create().parse_override(plain)
        return _make_range(override, plain)
    except (HydraException, TypeError, AttributeError) as error:
        raise ConfigError(f"method.search: cannot read '{entry}'; known are {KINDS}") from error


def _make_range(override: Override, entry: str) -> Range:
    key = entry.partition("=")[0].strip()
    path = override.package or override.key_or_group
    if override.is_delete() or path.partition(".")[0] != "method":
        raise ConfigError(f"method.search: '{entry}' must set a key under method")
    value = override.value()
    if not override.is_sweep_override():
        return Constant(key, override.get_value_element_as_str())
    if isinstance(value, IntervalSweep | RangeSweep) and value.start is not None:
        return _parse_numbers(key, entry, value)
    return Choice(key, tuple(override.sweep_string_iterator()))


def _parse_numbers(
    key: str, entry: str, value: IntervalSweep | RangeSweep
) -> IntRange | FloatRange:
    log = "log" in value.tags
    start, step = value.start, getattr(value, "step", None)
    stop = value.end if isinstance(value, IntervalSweep) else value.stop
    assert start is not None and stop is not None
    if step is not None:  # a range excludes its stop
        count = max(0, math.ceil((stop - start) / step))
        start, stop = sorted((start, start + (count - 1) * step)) if count else (1, 0)
        step = abs(step) if count > 1 else 1
    if not start <= stop < math.inf or (log and (start <= 0 or step not in (None, 1))):
        need = "0 < low <= high and no step" if log else "low <= high"
        raise ConfigError(f"method.search: '{entry}' must have {need}")
    whole = "int" in value.tags or all(isinstance(v, int) for v in (start, stop, step or 1))
    if whole:
        return IntRange(key, math.ceil(start), math.floor(stop), int(step or 1), log)
    return FloatRange(key, float(start), float(stop), None if step is None else float(step), log)
