"""Fills an options dataclass with plain values, and words what is wrong with them in one line."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from erulab.errors import ConfigError

KINDS = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}


def fill(kind: type, values: dict[str, Any], path: str, overrides: Sequence[str] = ()) -> Any:
    """Returns an instance of the dataclass `kind` made of plain values, with keys, types and ranges checked.

    Args:
        kind: the options class; its `__post_init__` raises ValueError("<field> must be ..., got ...") for a value
            that is out of range.
        values: field name -> plain value; fields that are left out keep their defaults.
        path: the config key of the options, such as "method"; messages name keys under it. "" for the whole config.
        overrides: what the user typed, so that a message can say that the value was set on the command line.
    Raises:
        ConfigError: an unknown key, or a value of the wrong type or range.
    """
    prefix = f"{path}." if path else ""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise ConfigError(
                f"unknown key {prefix}{key}{did_you_mean(str(key), fields)}; known: "
                f"{', '.join(prefix + name for name in fields)}"
            )
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
    except (ValidationError, ConfigKeyError) as error:
        raise ConfigError(type_error_line(error, prefix)) from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{prefix}{error.full_key or ''}: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        name = str(error).split()[0]
        key = f"{prefix}{name}"
        typed = " (set on the command line)" if any(o.lstrip("+").startswith(f"{key}=") for o in overrides) else ""
        hint = default_hint(key, field_default(fields[name])) if name in fields else ""
        raise ConfigError(f"{prefix}{error}{typed}{hint}") from None


def to_plain(value: Any) -> Any:
    """Returns dicts, lists and scalars in place of dataclass fields' values: enums by name, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value


def type_error_line(error: BaseException, prefix: str = "") -> str:
    """Returns the key of an OmegaConf error and what is allowed there.

    Args:
        prefix: put in front of the key that the error names, such as "method.".
    """
    text = str(error).splitlines()[0].rstrip(".")
    key = f"{prefix}{getattr(error, 'full_key', None) or ''}"
    default = _schema_default(error)
    hint = default_hint(key, default) if default is not None else ""
    kind = re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", text)
    if kind:
        return f"{key} must be {KINDS.get(kind[2], kind[2])}, got {kind[1]!r}{hint}"
    if "is not a ListConfig" in text:
        return f"{key} must be a list; type {key}=[VALUE]"
    if re.search("is not a valid bool", text):
        return f"{key} must be true or false{hint}"
    choice = re.match(r"Invalid value '(.*)', expected one of \[(.*)\]", text)
    if choice:
        return f"{key} must be one of {choice[2]}, got {choice[1]!r}{did_you_mean(choice[1], choice[2].split(', '))}"
    if "Incompatible value 'None'" in text or "is not Optional" in text:
        return f"{key} must not be null{hint}"
    if isinstance(error, RecursionError) or "recursion" in text.lower():
        return f"{key}: an interpolation refers to itself"
    # Interpolation errors name the key that is asked for, full_key the key that asks.
    return f"{key}: {text}" if key and not text.startswith(key) else text


def default_hint(key: str, default: str) -> str:
    """Returns `; try KEY=DEFAULT (default)`, or what to do where the schema's default does not count."""
    # A model can come with a trainer of its own (conf/trainer/): the schema's rates would be wrong by far for it.
    if key.startswith(("trainer.", "target.")):
        return f"; leave {key} out for the default of the model that is chosen"
    return f"; try {key}={default} (default)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ` (did you mean NEAREST?)`, or "" where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def field_default(field: dataclasses.Field[Any]) -> str:
    """Returns a field's default as it is typed on the command line: null, true, [a,b], an Enum's name."""
    return value_text(field.default if field.default_factory is dataclasses.MISSING else field.default_factory())


def value_text(value: Any) -> str:
    """Returns a value as it is typed on the command line: null, true, [a,b], an Enum's name."""
    if isinstance(value, list | tuple):
        return f"[{','.join(value_text(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(to_plain(value))


def _schema_default(error: BaseException) -> str | None:
    """Returns the default of the field that an OmegaConf error is about, if it is a plain number or text."""
    kind = getattr(error, "object_type", None)
    key = getattr(error, "key", None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return None
    for field in dataclasses.fields(kind):
        if field.name == key and isinstance(field.default, int | float | str) and field.default != "???":
            return str(field.default)
    return None
