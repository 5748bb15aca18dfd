"""Removes secrets from everything that is written, printed or uploaded."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
import traceback
import urllib.parse
from types import TracebackType
from typing import Any

REDACTED = "[redacted]"
# Shorter values of environment variables are kept, because they are ordinary words and numbers ("false", "8080"):
# redacting them would make every text unreadable and would protect no secret that is worth the name.
SHORTEST = 6
SHORTEST_LINE = 16  # characters of a line of a secret of several lines (a private key) that is redacted by itself

# Names of config keys and of fields in files.
_SECRET_NAME = re.compile(
    # Without "tokens": those of method.forget_tokens are no secret.
    r"(^|[^a-z])(token|(api_?key|key|secret|password|passwd|passphrase|pass|pwd|credential|cookie|dsn|auth)s?)$",
    re.IGNORECASE,
)
# Names of environment variables: a part between underscores. TOKENIZERS_PARALLELISM and SSH_ASKPASS_REQUIRE are none.
_SECRET_VARIABLE = re.compile(r"(?<!ASK)PASS|PWD|SECRET|CREDENTIAL|COOKIE|(KEY|TOKEN|DSN|AUTH)S?(_|$)", re.IGNORECASE)
_FOLDERS = ("PWD", "OLDPWD")  # of the shell
# A commit has 40 hex digits, as a wandb key has; it is kept, because a run cannot be repeated without it.
_COMMIT_NAME = re.compile(r"(revision|commit|git|sha)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|wandb_v1_[A-Za-z0-9_]{16,}|AKIA[A-Z0-9]{16}"
)
_HEX_KEY = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


def is_secret_name(name: str) -> bool:
    """Tells whether a key of a config or file has a name whose value is redacted, such as `api_key`."""
    return _SECRET_NAME.search(name) is not None


@functools.lru_cache(maxsize=4096)
def is_secret_variable(name: str) -> bool:
    """Tells whether the value of an environment variable of this name is redacted, such as that of `DB_PASS`."""
    return name not in _FOLDERS and _SECRET_VARIABLE.search(name) is not None


def secret_variable_in(text: str) -> str | None:
    """Returns the name of an environment variable whose secret value is in the text; None if there is none."""
    return next((name for name, value in _secret_variables() if value in text), None)


def redacted(value: Any, name: str = "") -> Any:
    """Returns the tree of dicts, lists and scalars with "[redacted]" in place of secrets.

    A string is a secret if its name says so (`api_key`, `token`, `secret`, `password`), by its form (hf_..., sk-..., 40
    hex digits, a password in a URL), or if an environment variable with such a name holds it.

    Args:
        value: the tree.
        name: the key that the value stands under.
    """
    if isinstance(value, dict):
        return {key: redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, name) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if is_secret_name(name):
        return REDACTED
    return redacted_text(value, commits=bool(_COMMIT_NAME.search(name)))


def redacted_text(text: str, *, commits: bool = False) -> str:
    """Replaces every part of a text that looks like a secret or is the value of a secret environment variable.

    Args:
        text: any text.
        commits: keep 40 hex digits, because they are a commit here.
    """
    text = _PASSWORD_IN_URL.sub(REDACTED, _SECRET_VALUE.sub(REDACTED, without_variables(text)))
    return text if commits else _HEX_KEY.sub(REDACTED, text)


def without_variables(value: Any) -> Any:
    """Returns the tree with the values of secret environment variables replaced in its strings; figures stay.

    Everything that a run folder keeps as JSON passes through here: unlike `redacted` it changes no ordinary text.
    """
    pattern = _variables_pattern(_secret_variables())
    return value if pattern is None else _replace_in_strings(value, pattern)


class RedactingFormatter(logging.Formatter):
    """Formats log records, including their exceptions, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted_text(super().format(record))


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints a traceback without secrets on stderr; takes what `sys.excepthook` takes, and stands in for it."""
    print(redacted_text("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr, flush=True)


def _replace_in_strings(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(REDACTED, value)
    if isinstance(value, dict):
        return {key: _replace_in_strings(item, pattern) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_in_strings(item, pattern) for item in value]
    return value


def _secret_variables() -> tuple[tuple[str, str], ...]:
    """Returns (name, value) of the environment variables whose values are secret."""
    found = ((name, value) for name, value in os.environ.items() if len(value) >= SHORTEST and is_secret_variable(name))
    return tuple((name, value) for name, value in found if not _is_file(value))


@functools.lru_cache(maxsize=256)
def _is_file(value: str) -> bool:
    """Tells whether the value is the path of a file, such as SSH_AUTH_SOCK: the file is secret, not its name."""
    try:
        return value.startswith("/") and os.path.exists(value)
    except ValueError:  # a NUL in it
        return False


@functools.lru_cache(maxsize=16)
def _variables_pattern(variables: tuple[tuple[str, str], ...]) -> re.Pattern[str] | None:
    """Returns what finds the values of variables, also as quotes, JSON and URLs spell them; None without variables."""
    spellings: set[str] = set()
    for _, value in variables:
        lines = [line.strip() for line in value.splitlines()]
        for secret in (value, *(line for line in lines if len(lines) > 1 and len(line) >= SHORTEST_LINE)):
            spellings |= {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], urllib.parse.quote(secret, safe="")}
    # The longest first: one secret may begin with another.
    return re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True)))) if spellings else None
