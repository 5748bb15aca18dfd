"""The registries of figures: what can be registered, and the errors for what cannot."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import erulab.evaluation.evaluate  # noqa: F401  # registers erulab's own measures
from erulab.data.measures import Answers, Measure, Pooled
from erulab.errors import ConfigError
from erulab.evaluation.measures import FigureRegistry, measures


@dataclass(frozen=True)
class Own(Measure):
    length: int = 3


def own(measure: Own, row: Any, builder: Any) -> Any:
    return None


def test_a_registered_function_is_found_by_its_dataclass() -> None:
    registry: FigureRegistry[Any] = FigureRegistry("measures", "measure")
    assert registry.register(Own)(own) is own
    assert registry.function_of(Own(5), "suite mine") is own


def test_two_functions_for_one_dataclass_are_refused() -> None:
    with pytest.raises(ValueError, match="measure Answers is already computed by erulab.evaluation.protocols.answers"):
        measures.register(Answers)(own)


def test_only_frozen_dataclasses_can_be_registered() -> None:
    class Plain(Measure):
        pass

    @dataclass
    class Thawed(Measure):
        length: int = 3

    for options in (Plain, Thawed):
        with pytest.raises(ValueError, match="must be a dataclass with frozen=True"):
            measures.register(options)


def test_what_is_not_registered_is_named_with_its_owner() -> None:
    registry: FigureRegistry[Any] = FigureRegistry("summaries", "summary")
    with pytest.raises(ConfigError, match=r"benchmark mine uses the summary Pooled.*put @summaries.register\(Pooled\)"):
        registry.function_of(Pooled("a", "b", ()), "benchmark mine")


def test_only_a_users_own_code_is_part_of_a_cache_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measures.plugin_code(Answers(), "suite mine") == ""
    registry: FigureRegistry[Any] = FigureRegistry("measures", "measure")
    found = []
    for text in ("def own(measure, row, builder): ...", "def own(measure, row, builder): return None"):
        file = tmp_path / "users_own.py"
        file.write_text(text)
        spec = importlib.util.spec_from_file_location("users_own", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "users_own", module)
        spec.loader.exec_module(module)
        registry._functions.clear()
        registry.register(Own)(module.own)
        found += [registry.plugin_code(Own(), "suite mine"), registry.plugin_code(Own(4), "suite mine")]
    assert len(set(found)) == 4  # another file or another option: another key
