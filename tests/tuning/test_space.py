"""Search spaces: their three shapes, what is typed in their place, and one line for each mistake."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from erulab.errors import ConfigError
from erulab.tuning.space import Choices, Range, read_space, typed_entry

OWN = {"trainer.lr": 2e-4, "method.beta": 0}


def read(entry: Any, key: str = "trainer.lr") -> Range | Choices:
    return read_space({key: entry}, OWN.get, "hydra.sweeper.space")[key]


def typed(text: str) -> Range | Choices:
    return typed_entry(OverridesParser.create().parse_override(text))


def test_the_shapes_of_an_entry() -> None:
    assert read({"low": 1e-5, "high": 1e-3, "log": True}) == Range(1e-5, 1e-3, log=True)
    assert read({"low": 1, "high": 8}) == Range(1, 8, whole=True)
    assert read({"factor": 10}) == Range(pytest.approx(2e-5), pytest.approx(2e-3), log=True)  # type: ignore[arg-type]
    assert read([True, None, "rfa", 0.5]) == Choices(("true", "null", "rfa", "0.5"))


def test_a_typed_sweep_is_an_entry() -> None:
    assert typed("a=interval(0.1,1)") == Range(0.1, 1)
    assert typed("a=tag(log,interval(1e-5,1e-3))") == Range(1e-5, 1e-3, log=True)
    assert typed("a=int(interval(1,9))") == Range(1, 9, whole=True)
    assert typed("a=rfa,none") == Choices(("rfa", "none"))
    assert typed("a=range(1,4)") == Choices(("1", "2", "3"))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"low": 1e-3, "high": 1e-5}, "low < high"),
        ({"low": 1.0, "high": 1.0}, "low < high"),
        ({"low": "a", "high": 2}, "low < high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "low > 0 where log"),
        ({"low": 0.1, "high": 1.0, "log": "yes"}, "log must be true or false"),
        ({"low": 0.1}, "must be {low: LOWEST"),
        ({"factor": 1}, "factor must be > 1"),
        (0.5, "must be {low: LOWEST"),
        ([], "different values"),
        ([1, 1], "different values"),
    ],
)
def test_a_bad_entry_is_one_line_with_its_key(entry: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(entry)
    assert str(error.value).startswith("hydra.sweeper.space.trainer.lr") and said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_factor_needs_a_value_above_zero() -> None:
    with pytest.raises(ConfigError, match="value > 0 of method.beta, which is 0"):
        read({"factor": 10}, "method.beta")


def test_a_rounded_value_stays_in_its_range() -> None:
    """Three digits of 0.99951 are 1.0, which a share below 1 may not be."""
    entry = Range(0.9994, 0.99951)
    for number in range(20):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number)).ask()
        assert entry.low <= float(entry.suggest(trial, "a")) <= entry.high
