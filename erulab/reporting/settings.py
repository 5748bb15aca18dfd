"""Flattens configs into settings, and finds the settings in which compared runs differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

# Where a run wrote and on what machine it ran; these change no result.
NOT_SETTINGS = ("output", "cache", "tracker", "engine", "rerun", "stages", "plugins", "artifacts")
PLUGIN_GROUPS = ("model", "dataset", "method", "reward", "adversary")
COLUMNS = ("method.name", "reward.name", "adversary.name")  # tables show them beside the differing settings


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
    # All values of a setting among the configs that it is compared in: one that is unlike the first differs for all.
    first: dict[tuple[str, object], Any] = {}
    differing: set[tuple[str, object]] = set()
    for config, own in zip(configs, flats, strict=True):
        for key, value in own.items():
            place = _compared_in(config, key)
            if first.setdefault(place, value) != value:
                differing.add(place)
    return [
        {key: value for key, value in own.items() if key not in COLUMNS and _compared_in(config, key) in differing}
        for config, own in zip(configs, flats, strict=True)
    ]


def settings_unlike_most(configs: Sequence[dict[str, Any]]) -> list[dict[str, object]]:
    """Returns the differing settings without those values that more than half of the compared configs share."""
    changed = differing_settings(configs)
    counts = Counter(
        (_compared_in(config, key), repr(value))
        for config, own in zip(configs, changed, strict=True)
        for key, value in own.items()
    )
    compared = Counter(place for place, _ in counts.elements())
    return [
        {
            key: value
            for key, value in own.items()
            if 2 * counts[place := _compared_in(config, key), repr(value)] <= compared[place]
        }
        for config, own in zip(configs, changed, strict=True)
    ]


def _compared_in(config: dict[str, Any], key: str) -> tuple[str, object]:
    """Returns a setting and the plugin among whose configs it is compared; None stands for all configs."""
    group, _, name = key.partition(".")
    return key, None if group not in PLUGIN_GROUPS or name == "name" else repr(_chosen_plugin(config, group))


def _chosen_plugin(config: dict[str, Any], group: str) -> object:
    options = config.get(group)
    return options.get("name") if isinstance(options, dict) else None


def _collect_settings(value: Any, key: str, out: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            _collect_settings(item, f"{key}.{name}" if key else str(name), out)
    else:
        out[key] = value
