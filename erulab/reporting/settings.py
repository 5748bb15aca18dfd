"""Flattens configs into settings, and finds the settings in which compared runs differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

# Where a run wrote and on what machine it ran; these change no result.
NOT_SETTINGS = ("output", "cache", "tracker", "engine", "rerun", "stages", "plugins", "artifacts")
PLUGIN_GROUPS = ("model", "dataset", "method", "reward", "adversary")


def flat_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the config's values by dotted key, in the config's order."""
    out: dict[str, Any] = {}
    _collect_settings(config, "", out)
    return out


def setting_text(value: object) -> str:
    """Writes a setting's value on one line."""
    return value if isinstance(value, str) else json.dumps(value)


def differing_settings(configs: Sequence[dict[str, Any]]) -> list[dict[str, object]]:
    """Returns, for each config, the settings in which it differs from another config with the same plugin.

    Names of method, reward and adversary are left out, because tables have columns for them. Options of a plugin are
    compared only among runs that chose it; otherwise every option of every method would count as a difference.
    """
    flats = [flat_settings({k: v for k, v in config.items() if k not in NOT_SETTINGS}) for config in configs]
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
                if all_count or _chosen_plugin(other_config, group) == _chosen_plugin(config, group)
            ]
            if any(other.get(key, value) != value for other in peers):
                mine[key] = value
        result.append(mine)
    return result


def _chosen_plugin(config: dict[str, Any], group: str) -> object:
    options = config.get(group)
    return options.get("name") if isinstance(options, dict) else None


def _collect_settings(value: Any, key: str, out: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            _collect_settings(item, f"{key}.{name}" if key else str(name), out)
    else:
        out[key] = value
