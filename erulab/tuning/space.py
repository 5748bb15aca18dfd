"""Search spaces: which keys of a run are searched, and between which values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from erulab.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

SHAPES = "{low: LOWEST, high: HIGHEST, log: true}, {factor: 10} or a list of choices"


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included; `log`: uniform in the logarithm; `whole`: whole numbers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def suggest(self, trial: Trial, key: str) -> str:
        """Returns the value of a trial, as it is typed: three digits of it are enough to repeat the run."""
        if self.whole:
            return str(trial.suggest_int(key, int(self.low), int(self.high), log=self.log))
        value = float(f"{trial.suggest_float(key, self.low, self.high, log=self.log):.3g}")
        return f"{min(max(value, self.low), self.high):.6g}"

    @property
    def distribution(self) -> BaseDistribution:
        """The range as Optuna knows it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Choices:
    """A few values, as they are typed."""

    values: tuple[str, ...]

    def suggest(self, trial: Trial, key: str) -> str:
        return str(trial.suggest_categorical(key, self.values))

    @property
    def distribution(self) -> BaseDistribution:
        """The choices as Optuna knows them."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)


Space = dict[str, Range | Choices]


def read_space(plain: Mapping[str, Any], own_value: Callable[[str], Any], where: str) -> Space:
    """Reads a space from its plain form: key -> one of SHAPES.

    Args:
        own_value: returns the run's own value of a key, of which `factor` makes a range.
        where: the config key of the space, for messages.
    Raises:
        ConfigError: an entry is none of SHAPES, or its bounds enclose nothing.
    """
    return {str(key): _read_entry(f"{where}.{key}", str(key), entry, own_value) for key, entry in plain.items()}


def _read_entry(path: str, key: str, entry: Any, own_value: Callable[[str], Any]) -> Range | Choices:
    if isinstance(entry, list):
        return _choices(path, entry)
    if isinstance(entry, dict) and set(entry) == {"factor"}:
        own, factor = own_value(key), entry["factor"]
        if not _is_number(factor) or not 1 < factor < math.inf:
            raise ConfigError(f"{path}.factor must be > 1, got {factor}; try 10")
        if not _is_number(own) or not own > 0:
            raise ConfigError(
                f"{path}.factor needs a value > 0 of {key}, which is {own}; give {{low: , high: }} instead"
            )
        return Range(own / factor, own * factor, log=True)
    if not isinstance(entry, dict) or not {"low", "high"} <= set(entry) <= {"low", "high", "log"}:
        raise ConfigError(f"{path} must be {SHAPES}, got {entry}")
    low, high, log = entry["low"], entry["high"], entry.get("log", False)
    return _range(path, low, high, log=log, whole=isinstance(low, int) and isinstance(high, int))


def _range(path: str, low: Any, high: Any, *, log: Any, whole: bool) -> Range:
    if not isinstance(log, bool):
        raise ConfigError(f"{path}.log must be true or false, got {log}")
    if not (_is_number(low) and _is_number(high) and -math.inf < low < high < math.inf):
        raise ConfigError(f"{path} must have low < high, both numbers, got {low} and {high}")
    if log and low <= 0:
        raise ConfigError(f"{path} must have low > 0 where log is true, got {low}")
    return Range(low, high, log, whole)


def _choices(path: str, values: Sequence[Any]) -> Choices:
    plain = [_as_typed(value) for value in values]
    if not plain or len(set(plain)) < len(plain):
        raise ConfigError(f"{path} must be a list of different values, got {list(values)}")
    return Choices(tuple(plain))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_typed(value: Any) -> str:
    """Returns a plain value as it is typed behind `=`."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def typed_entry(override: Override) -> Range | Choices:
    """Returns what a typed sweep searches: `a=1,2`, `a=interval(0.1,1)`, `a=tag(log,interval(1,9))`.

    Raises:
        ConfigError: the sweep is of a kind that is not searched.
    """
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return _range(key, value.start, value.end, log="log" in value.tags, whole=whole)
    if isinstance(value, ChoiceSweep | RangeSweep):
        return _choices(key, list(override.sweep_string_iterator()))
    raise ConfigError(f"{override.input_line} is not searched; type {key}=1,2 or {key}='interval(0.1,1)'")
