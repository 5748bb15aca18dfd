"""Reads the files of run folders: the only place that parses them for a report.

A file that cannot be read is named in one line, with the line or the key, and counts as empty: the rest of the report
is still made.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from erulab.errors import IntegrityFault
from erulab.reporting import shapes
from erulab.reporting.shapes import Shape, WrongShape

DEEPEST = 100  # levels; no file of a run is nested deeper, and recursion over the values must end
MOST_VALUES = 10_000_000  # on one level
# libyaml is ten times as fast as the parser in Python, and has a limit on nesting.
YAML: type[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
AGAIN = "type the run's command again to write it anew"


class ResultFiles:
    """Reads files, and collects a line about each one that is damaged."""

    def __init__(self) -> None:
        self.damaged: list[str] = []

    def json(self, file: Path, shape: Shape, empty: Any) -> Any:
        """Returns the content of a JSON file; `empty` if there is no such file, or it is damaged."""
        try:
            return read_json(file, shape) if file.is_file() else empty
        except IntegrityFault as fault:
            self.damaged.append(str(fault))
            return empty

    def config(self, file: Path) -> dict[str, Any]:
        """Returns the content of run.yaml; an empty dict if it is damaged."""
        try:
            content = yaml.load(_read_text(file), YAML)
            _check_depth(content)
            shapes.config(content, "")
        except (yaml.YAMLError, ValueError, RecursionError, WrongShape) as error:
            self.damaged.append(_damage(file, error))
            return {}
        except IntegrityFault as fault:
            self.damaged.append(str(fault))
            return {}
        found: dict[str, Any] = content
        return found

    def metrics(self, file: Path) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl up to the first damaged one.

        A crash can leave a cut line after the last newline; it is ignored.
        """
        rows: list[dict[str, Any]] = []
        if not file.is_file():
            return rows
        try:
            lines = _read_text(file).split("\n")
            for number, line in enumerate(lines[:-1], 1):
                rows.append(_parse(line, shapes.metrics_line, f"{file}:{number}"))
        except IntegrityFault as fault:
            self.damaged.append(str(fault))
        return rows


def read_json(file: Path, shape: Shape) -> Any:
    """Returns the content of a JSON file.

    Raises:
        IntegrityFault: the file is not what a run writes; the line or the key, and what to type.
    """
    return _parse(_read_text(file), shape, str(file))


def _read_text(file: Path) -> str:
    try:
        content = file.read_bytes()
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise IntegrityFault(
            f"{file}:{line} is damaged: byte 0x{content[error.start]:02x} is no UTF-8; {AGAIN}"
        ) from None
    except OSError as error:
        raise IntegrityFault(f"{file} cannot be read: {error.strerror}; {AGAIN}") from None


def _parse(text: str, shape: Shape, where: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole)
        # Half of a pair of surrogates is no character; the report makes it visible where a model's text has it.
        if "\\ud" in text.lower() and shape not in (shapes.samples, shapes.alternatives):
            json.dumps(value, ensure_ascii=False).encode()
        _check_depth(value)
        shape(value, "")
    except (ValueError, RecursionError, WrongShape) as error:
        raise IntegrityFault(_damage(where, error)) from None
    return value


def _damage(where: Path | str, error: Exception) -> str:
    """Returns the line about a damaged file: where it is, what is wrong, what to type."""
    if isinstance(error, RecursionError):
        return f"{where} is damaged: nested too deep; {AGAIN}"
    if isinstance(error, json.JSONDecodeError):
        line = f":{error.lineno}" if error.lineno > 1 else ""
        return f"{where}{line} is damaged: {error.msg} at column {error.colno}; {AGAIN}"
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return f"{where}{line} is damaged: {problem}; {AGAIN}"


def _check_depth(value: Any) -> None:
    """Raises RecursionError if a value is nested deeper than DEEPEST or endless, without recursion of its own."""
    level = [value]
    for _ in range(DEEPEST):
        level = [item for one in level if isinstance(one, dict | list) for item in _items(one)]
        if not level:
            return
        if len(level) > MOST_VALUES:  # aliases of YAML that multiply
            break
    raise RecursionError


def _items(value: dict[Any, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is no finite number")
    return value


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= 30 else _finite(digits)
