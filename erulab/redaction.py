"""Removes secrets from everything that is written, printed or uploaded."""

from __future__ import annotations

import os
import re
from typing import Any

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(r"(^|[^a-z])(api_?key|key|token|secret|password|passwd|credential)s?$", re.IGNORECASE)
# A commit has 40 hex digits, as a wandb key has; it is kept, because a run cannot be repeated without it.
_COMMIT_NAME = re.compile(r"(revision|commit|git|sha)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|wandb_v1_[A-Za-z0-9_]{16,}|AKIA[A-Z0-9]{16}"
)
_HEX_KEY = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


def is_secret_name(name: str) -> bool:
    """Tells whether a key or an environment variable has a name whose value is redacted, such as `JUDGE_API_KEY`."""
    return _SECRET_NAME.search(name) is not None


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
    """Replaces every part of a text that looks like a secret.

    Args:
        text: any text.
        commits: keep 40 hex digits, because they are a commit here.
    """
    for name, secret in os.environ.items():
        if len(secret) >= 8 and is_secret_name(name):
            text = text.replace(secret, REDACTED)
    text = _PASSWORD_IN_URL.sub(REDACTED, _SECRET_VALUE.sub(REDACTED, text))
    return text if commits else _HEX_KEY.sub(REDACTED, text)
