"""The options of a plugin or a typed part of a run as rows of a table: key, default, meaning.

The meaning of an option is the comment beside or above its field in the source of its dataclass, so that it is written
once, where the option is.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import io
import tokenize
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from erulab.typed import field_default


@dataclasses.dataclass(frozen=True)
class OptionField:
    """One option as a user meets it."""

    key: str  # as typed on the command line, such as method.beta
    default: str
    meaning: str  # "" where the source has no comment


def option_fields(kind: type, path: str) -> list[OptionField]:
    """Returns the options of a dataclass in the order of its fields, inherited ones first.

    Args:
        kind: the dataclass. Fields that are dataclasses themselves give a row for each of their fields. `name` is left
            out where `path` names a plugin's group, because it is chosen with GROUP=NAME.
        path: the config key of the options, such as "method" or "attack.relearn"; "" for the run itself.
    """
    prefix = f"{path}." if path else ""
    hints = typing.get_type_hints(kind)
    rows: list[OptionField] = []
    for field in dataclasses.fields(kind):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            rows += option_fields(hint, key)
        elif field.name != "name":
            rows.append(OptionField(key, field_default(field), _meaning(kind, field.name, hint)))
    return rows


def _meaning(kind: type, name: str, hint: Any) -> str:
    """Returns a field's comment and, for an Enum, the values that may be typed."""
    classes = [known for known in kind.__mro__ if known is not object]
    comment = next((found for known in classes if (found := _class_comments(known).get(name))), "")
    enums = [known for known in (hint, *typing.get_args(hint)) if isinstance(known, type) and issubclass(known, Enum)]
    if not enums:
        return comment
    notes = _class_comments(enums[0])
    values = [f"{value.name} ({notes[value.name]})" if value.name in notes else value.name for value in enums[0]]
    choice = f"{'some' if typing.get_origin(hint) is list else 'one'} of: {', '.join(values)}"
    return f"{comment}; {choice}" if comment else choice


@functools.cache
def _class_comments(kind: type) -> dict[str, str]:
    """Returns name -> comment for the fields (of an Enum: the members) that are defined in the class's own body."""
    file = inspect.getsourcefile(kind)
    if file is None:
        return {}
    tree, beside, above = _parsed(Path(file))
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or node.name != kind.__name__:
            continue
        for line in node.body:
            targets = [line.target] if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [])
            for target in targets:
                if isinstance(target, ast.Name) and (text := _comment_of(line, beside, above)):
                    found[target.id] = text
    return found


def _comment_of(line: ast.stmt, beside: dict[int, str], above: dict[int, str]) -> str:
    first = line.lineno
    while first - 1 in above:
        first -= 1
    parts = [above[number] for number in range(first, line.lineno)]
    parts += [beside[number] for number in range(line.lineno, (line.end_lineno or line.lineno) + 1) if number in beside]
    return " ".join(parts)


@functools.cache
def _parsed(file: Path) -> tuple[ast.Module, dict[int, str], dict[int, str]]:
    """Returns a source file's tree, and line -> comment for comments behind code and for those on their own line."""
    source = file.read_text(encoding="utf-8")
    beside: dict[int, str] = {}
    above: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            (above if alone else beside)[token.start[0]] = token.string.lstrip("# ").split("type: ignore")[0].strip()
    return ast.parse(source), beside, above
