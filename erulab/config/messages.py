"""Errors of Hydra, OmegaConf and YAML in one line: key, value, what is allowed, what to type."""

from __future__ import annotations

import dataclasses
import re
import sys
import traceback

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from erulab import registry
from erulab.config.other_names import override_for
from erulab.errors import ConfigError, ErulabError
from erulab.options import RunConfig
from erulab.redaction import redacted_text
from erulab.typed import did_you_mean, type_error_line

# Errors that the user can mend; all others are bugs and keep their traceback.
USER_ERRORS = (ErulabError, HydraException, OmegaConfBaseException, yaml.YAMLError)


def exit_with_line(error: Exception) -> int:
    """Prints one of USER_ERRORS on stderr as one line without secrets; returns its exit code."""
    text, code = (str(error), error.code) if isinstance(error, ErulabError) else (error_line(error), ConfigError.code)
    print(redacted_text(text), file=sys.stderr)
    return code


def composing_fault(error: BaseException) -> str | None:
    """Returns the line about an error that Hydra or OmegaConf raised by accident; None for a fault of erulab.

    They answer some command lines with a TypeError or AssertionError of their own code.
    """
    if isinstance(error, (*USER_ERRORS, OSError)) or not isinstance(error, Exception):
        return None
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not modules or modules[-1].partition(".")[0] not in ("hydra", "omegaconf", "antlr4"):
        return None
    said = (str(error).splitlines() or [""])[0]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"the command line cannot be composed ({what}); type KEY=VALUE, and whole lists: stages=[target,oracle]"


def error_line(error: Exception) -> str:
    """Returns what went wrong while composing, for the person who typed the command."""
    if isinstance(error, MissingConfigException):
        return _unknown_option(error)
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        if "~/" in value:
            home = value.replace("~/", "$HOME/")
            return f"{error.override!r} cannot be read: ~ is no folder behind =; type {key}={home}"
        return f"{error.override!r} cannot be read; type KEY=VALUE, special characters in quotes: KEY='\"a b\"'"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, yaml.YAMLError):
        return _yaml_error_line(cause)
    ambiguous = re.match(r"Ambiguous value for argument '([^']*)'", str(error))
    if ambiguous:
        return f"{ambiguous[1]} names several values: for one run of each, add -m"
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()]
    override = re.match(r"(?:Error merging override|Could not override) ?'?([^']*)'?", first)
    if isinstance(cause, OmegaConfBaseException):
        if override and "not in" in (cause.msg or ""):
            return _unknown_key(override[1].rstrip("."), cause)
        if override:
            return f"{override[1]}: {type_error_line(cause)}"
        return type_error_line(cause)
    if first.startswith("Could not override"):
        group = re.search(r"'([^']*)'", first)
        return _unknown_group(group[1]) if group else first
    return " ".join([first, *rest[:2]])


def _unknown_option(error: MissingConfigException) -> str:
    """Returns the line for `method=nop`: the group, the nearest name, all names."""
    missing = str(error.missing_cfg_file or "")
    group, _, name = missing.rpartition("/")
    options = sorted(error.options or [])
    if missing.startswith("experiment/"):  # recipes lie in subfolders, and Hydra lists only one of these
        group, _, name = missing.partition("/")
        folders = [folder / group for folder in registry.conf_folders()]
        options = sorted(
            {str(f.relative_to(folder).with_suffix("")) for folder in folders for f in folder.rglob("*.yaml")}
        )
    if not options and group in registry.GROUPS:  # Hydra lists none for one name of a list such as attack=[a,b]
        options = registry.GROUPS[group].names()
    if not options or not group:
        return str(error).splitlines()[0]
    return f"{group}={name[:60]!r} is unknown{did_you_mean(name, options)}; known: {', '.join(options)}"


def _unknown_group(group: str) -> str:
    known = [*(field.name for field in dataclasses.fields(RunConfig)), "experiment", "sweep", "tune"]
    return f"unknown key {group}{did_you_mean(group, known)}; known: {', '.join(known)}"


def _unknown_key(key: str, error: OmegaConfBaseException) -> str:
    parent, _, name = key.partition("=")[0].rpartition(".")
    if not parent:
        return _unknown_group(name)
    kind = error.object_type if dataclasses.is_dataclass(error.object_type) else None
    fields = [field.name for field in dataclasses.fields(kind)] if kind is not None else []
    same = None if name in fields else override_for(f"trainer.method_args.{name}" if parent == "method" else name)
    if same is not None and f"{parent}.{name}=" not in same:
        here = same.partition("=")[0].rpartition(".")[2]  # target.learning_rate is target.lr, not trainer.lr
        return f"unknown key {parent}.{name}; type {f'{parent}.{here}=VALUE' if here in fields else same}"
    known = f"; known: {', '.join(f'{parent}.{field}' for field in fields)}" if fields else ""
    others = _others_with(parent, name)
    return f"unknown key {parent}.{name}{'' if others else did_you_mean(name, fields)}{known}{others}"


def _others_with(group: str, option: str) -> str:
    """Returns which choices of a group have an option that the chosen one has not; "" if none has."""
    if group not in registry.GROUPS or group in registry.LIST_GROUPS:
        return ""
    plugins = registry.GROUPS[group]
    options = {name: {field.name for field in dataclasses.fields(plugins[name].options)} for name in plugins.names()}
    having = [f"{group}={name}" for name, fields in options.items() if option in fields]
    return f"; it is an option of {', '.join(having)}" if having else ""


def _yaml_error_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"{mark.name}:{mark.line + 1}: " if mark is not None else ""
    return f"{where}{problem}"
