"""The config that a tracker gets: every option, the names of the plugins, the commit and the versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import Enum
from typing import Any

from erulab.options import RunConfig
from erulab.redaction import redacted
from erulab.rundir import RunDir
from erulab.tracking.naming import choices

OPTIONS = "_options"  # behind the name of a group whose own name a sweep has taken


def sent_config(rundir: RunDir, config: RunConfig, taken: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the nested config, with `choice` (the plugins by name) and `env` (env.json), without secrets.

    Args:
        taken: keys that a sweep sets to plain values, which its scheduler reads: `method` is "npo" then, and the
            method's options stand under `method_options`.
    """
    env = rundir.read_json(rundir.env_json) if rundir.env_json.is_file() else {}
    whole = {**_json_like(dataclasses.asdict(config)), "choice": choices(config), "env": env}
    plain: dict[str, Any] = redacted(whole)
    renamed = {key: f"{key}{OPTIONS}" for key in taken if isinstance(plain.get(key), dict)}
    return {renamed.get(key, key): value for key, value in plain.items()}


def _json_like(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_like(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_like(item) for item in value]
    return value.value if isinstance(value, Enum) else value
