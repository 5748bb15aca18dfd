"""Configs as flat settings, and what sets the runs of a comparison apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

# Where a run wrote and on what it ran: no part of what was asked.
NOT_SETTINGS = ("output", "cache", "tracker", "engine", "rerun", "stages", "plugins", "artifacts")
PLUGIN_GROUPS = ("model", "dataset", "method", "reward", "adversary")


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys -> values, in the config's order."""
    out: dict[str, Any] = {}
    _flatten(config, "", out)
    return out


def flat(value: object) -> str:
    """A setting's value on one line."""
    return value if isinstance(value, str) else json.dumps(value)


def differing(configs: Sequence[dict[str, Any]]) -> list[dict[str, object]]:
    """For each config the settings in which it differs from another one that chose the same plugin.

    method, reward and adversary names are left out: a table has columns for them. Without the rule on plugins every
    option of every method would count as a difference in a comparison of methods.
    """
    flats = [settings({k: v for k, v in config.items() if k not in NOT_SETTINGS}) for config in configs]
    result: list[dict[str, object]] = []
    for config, own in zip(configs, flats, strict=True):
        mine: dict[str, object] = {}
        for key, value in own.items():
            group = key.split(".")[0]
            if key in ("method.name", "reward.name", "adversary.name"):
                continue
            all_count = group not in PLUGIN_GROUPS or key == f"{group}.name"
            peers = [
                other
                for other_config, other in zip(configs, flats, strict=True)
                if all_count or _name(other_config, group) == _name(config, group)
            ]
            if any(other.get(key, value) != value for other in peers):
                mine[key] = value
        result.append(mine)
    return result


def _name(config: dict[str, Any], group: str) -> object:
    options = config.get(group)
    return options.get("name") if isinstance(options, dict) else None


def _flatten(value: Any, key: str, out: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            _flatten(item, f"{key}.{name}" if key else str(name), out)
    else:
        out[key] = value
