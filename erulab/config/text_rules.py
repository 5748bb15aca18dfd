"""Checks of what was typed, before any of it has a type: names of choices, texts that become file names, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from erulab.errors import ConfigError
from erulab.redaction import REDACTED, redacted_text, secret_variable_in
from erulab.registry import GROUPS, LIST_GROUPS

NAMES = ("name", "split", "project", "entity", "group")  # keys whose values become parts of file names
LONGEST = 255  # bytes of a file name that common file systems allow
OTHER_GROUPS = ("trainer", "engine", "tracker", "experiment", "sweep", "tune")
SWEEPERS = ("basic", "erulab_tune")
COMMIT_OR_HASH = re.compile(r"[0-9a-f]{40}")


def check_overrides(overrides: Iterable[str]) -> None:
    """Refuses choices that Hydra would look for outside the conf folders or answer with a traceback.

    Args:
        overrides: the command line, such as ["method=npo", "-m"]; flags are left to Hydra.
    Raises:
        ConfigError: the override, and what to type instead.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        _check_own_node(key, value)
        if key.startswith("~") and key.rpartition(".")[2].isdecimal():
            whole = key[1:].rpartition(".")[0]
            raise ConfigError(f"{override}: an item of a list cannot be taken out; type the whole list: {whole}=[...]")
        group = key.removeprefix("+").partition("@")[0]  # method@method.first=npo chooses for another place
        if "\0" in key or len(key.encode(errors="surrogatepass")) > LONGEST:
            raise ConfigError(f"{key[:40]!r}... is no key: it is too long or holds a NUL character; type KEY=VALUE")
        if equals and not key:
            raise ConfigError(f"{override!r} names no key; type KEY=VALUE")
        if not equals or group not in (*GROUPS, *OTHER_GROUPS):
            continue
        if group in GROUPS and group == key and value.strip() in ("null", ""):
            names = ", ".join(["none"] * (group in LIST_GROUPS) + GROUPS[group].names())
            raise ConfigError(f"{override}: {group} is required; type {group}=NAME, one of: {names}")
        for name in re.split(r"[\[\],\s'\"]+", value):
            # Numbers and booleans are no names to Hydra either, and it says so with a traceback.
            plain = r"[A-Za-z_][\w-]{0,99}"
            # Recipes lie in one folder per benchmark.
            allowed = rf"({plain}/)?{plain}" if group == "experiment" else plain
            if name and (not re.fullmatch(allowed, name) or name.lower() in ("true", "false")):
                raise ConfigError(f"{group}={name[:60]!r} is no option's name: letters, digits, _ and - only")
        if value.startswith("[") and group not in LIST_GROUPS:
            raise ConfigError(f"{override}: {group} takes one choice; for a run of each: -m {group}={value[1:-1]}")


def check_texts(values: dict[str, Any]) -> None:
    """Refuses code (`_target_`), secrets, and texts that cannot be file names where they become one.

    Args:
        values: a composed config as plain dicts and lists.
    Raises:
        ConfigError: the key, and what is wrong with its value; a secret is not shown.
    """
    for key, value in _leaves(values):
        name = key.rsplit(".", 1)[-1]
        if "_target_" in key.split("."):
            raise ConfigError(f"{key}: _target_ would run code that a config names; refused outside hydra's node")
        if not isinstance(value, str):
            continue
        if value.startswith("~/"):
            raise ConfigError(f"{key}={value}: ~ is no folder behind =; type {key}=$HOME{value[1:]}")
        if "\0" in value:
            raise ConfigError(f"{key} holds a NUL character, which no name or path can")
        if any(len(part.encode(errors="surrogatepass")) > LONGEST for part in value.split("/")):
            raise ConfigError(f"{key} holds a name of more than {LONGEST} bytes: {value[:40]}...; give a shorter one")
        if name in NAMES and ("/" in value or value in (".", "..")):
            raise ConfigError(f"{key} must be a plain name without /, got {value!r}")
        variable = secret_variable_in(value)
        if variable is not None:
            raise ConfigError(
                f"{key} holds the value of the environment variable {variable}, by its name a secret (not shown here); "
                f"configs are written to files: leave it out, or rename {variable} if it is no secret"
            )
        # 40 hex digits inside a path are a commit (the hub's cache); alone they are a wandb key.
        if REDACTED in redacted_text(value, commits=not COMMIT_OR_HASH.fullmatch(value)):
            raise ConfigError(
                f"{key} looks like a secret (its value is not shown); configs are written to files, so set it in the "
                "environment instead: WANDB_API_KEY, HF_TOKEN"
            )


def _check_own_node(key: str, value: str) -> None:
    """Refuses values of Hydra's own node that it answers with a traceback, or that would search for exit codes."""
    if key == "hydra/sweeper" and value not in SWEEPERS:
        raise ConfigError(
            f"{key}={value} would minimise exit codes, and on facts that are reported; type -m tune=METHOD, which "
            "searches with Optuna on validation facts"
        )
    if key == "hydra.sweeper.max_batch_size" and not re.fullmatch(r"null|[1-9]\d{0,8}", value):
        raise ConfigError(f"{key} must be a whole number > 0 or null, got {value}; leave it out to run all jobs")
    if key not in ("hydra.run.dir", "hydra.sweep.dir"):
        return
    if "\0" in value:
        raise ConfigError(f"{key} holds a NUL character, which no name or path can")
    if any(len(part.encode(errors="surrogatepass")) > LONGEST for part in value.split("/")):
        raise ConfigError(f"{key} holds a name of more than {LONGEST} bytes: {value[:40]}...; give a shorter one")
    if value.startswith("~/"):
        raise ConfigError(f"{key}={value}: ~ is no folder behind =; type {key}=$HOME{value[1:]}")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (key, value) of everything that is no dict and no list; items of a list have the list's key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
    else:
        yield path, value
