"""What a tracked run is called: a readable name, its tags, its kind and its group."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from erulab.config.compose import compose_config, config_to_dict
from erulab.errors import ErulabError
from erulab.methods.base import StandIn
from erulab.options import NOT_IN_PRODUCT, RunConfig
from erulab.redaction import redacted_text
from erulab.registry import methods
from erulab.reporting.settings import flat_settings
from erulab.rundir import RunDir

LONGEST = 64  # characters of a name before its key; wandb cuts names in its tables at about this length
LONGEST_TAG = 64  # wandb refuses longer ones
LONGEST_VALUE = 20  # characters of a value in a name
# Parts that a name tells of, in the order of the name; the others measure the model and do not make it.
TOLD = ("model", "dataset", "method", "reward", "adversary", "trainer", "target", "seed")
NAMED = ("model", "dataset", "reward", "adversary")  # groups with a plugin; its options mean nothing for another
SHORT = {"trainer.lr": "lr", "seed": "s", "target.lr": "target-lr", "target.seed": "target-s"}
KEY = re.compile(r"-([0-9a-f]{10}\b.*)$")  # in the name of a run folder


def run_name(rundir: RunDir, config: RunConfig) -> str:
    """Returns the name of a run: its method, what differs from the method's defaults, and its key.

    `npo_lr3e-4_s1-4383a5f3ea`. A long name ends with how many settings it leaves out: `_+3`. WANDB_NAME comes first if
    it is set; the key follows it, because the jobs of a sweep read the same variable.
    """
    key = KEY.search(rundir.path.name)
    named = os.environ.get("WANDB_NAME", "").strip()
    if key is None and not named:
        return redacted_text(rundir.path.name)  # the user has named the folder
    made_by = "checkpoint" if config.only_given_models else str(config.method.name)
    name = named or _bounded(made_by, [] if config.only_given_models else differences(config))
    return redacted_text(f"{name}-{key[1]}" if key else name)


def differences(config: RunConfig) -> list[str]:
    """Returns what differs from a run of the method on the same model without further settings: ["lr3e-4", "s1"].

    A model with a path stands there by its own name, a data set by its split, and a reward or an adversary that is not
    the method's usual one by its name.
    """
    own, usual = config_to_dict(config), _usual_config(config)
    parts = [str(own["model"]["path"]).rstrip("/").rpartition("/")[2]] if own["model"].get("path") else []
    if isinstance(own["dataset"].get("split"), str):
        parts.append(f"{config.dataset.name}-{own['dataset']['split']}")
    for group in TOLD if usual else ():
        before = flat_settings({group: usual[group]})
        if group in NAMED and own[group]["name"] != usual[group]["name"]:
            parts += [own[group]["name"]] if group in ("reward", "adversary") else []
            continue
        for key, value in flat_settings({group: own[group]}).items():
            last = key.rpartition(".")[2]
            if last not in (*NOT_IN_PRODUCT, "path", "split") and value != before.get(key) and value is not None:
                parts.append(f"{SHORT.get(key, last)}{_short(value)}")
    return [_plain(part) for part in parts]


def _usual_config(config: RunConfig) -> dict[str, Any]:
    """Returns the config of the method with nothing else typed but its model; {} if the method asks for more."""
    method = [f"plugins=[{','.join(config.plugins)}]"] if config.plugins else []
    method += [f"method={config.method.name}"]
    path = config_to_dict(config)["model"].get("path")
    model = [f"model={config.model.name}", f"model.path={path}"] if path else []
    for overrides in ([*method, *model], method):
        with contextlib.suppress(ErulabError):
            return config_to_dict(compose_config(overrides))
    return {}


def tags(config: RunConfig) -> list[str]:
    """Returns method, data set, reward and adversary, then the tags that were typed and those of WANDB_TAGS."""
    own = [config.dataset.name, *([] if config.only_given_models else _training_names(config))]
    typed = [*config.tracker.tags, *os.environ.get("WANDB_TAGS", "").split(",")]
    every = [redacted_text(str(tag).strip())[:LONGEST_TAG] for tag in (*own, *typed)]
    return list(dict.fromkeys(tag for tag in every if tag and tag != "none"))


def job_type(config: RunConfig) -> str:
    """Returns the kind of a run: `checkpoint` for models that are only scored, `reference` for those it is compared
    with, otherwise `unlearn`."""
    if config.only_given_models:
        return "checkpoint"
    return "reference" if isinstance(methods.build(config.method), StandIn) else "unlearn"


def choices(config: RunConfig) -> dict[str, str]:
    """Returns the plugin chosen in each group, by its name: what panels group and colour by."""
    groups = ("model", "dataset", "method", "reward", "adversary")
    return {group: str(getattr(config, group).name) for group in groups}


def _training_names(config: RunConfig) -> list[str]:
    return [config.method.name, config.reward.name, config.adversary.name]


def _bounded(first: str, parts: list[str]) -> str:
    """Joins the parts of a name, as many as it has room for, and counts the others."""
    name = first
    for number, part in enumerate(parts):
        if len(name) + 1 + len(part) > LONGEST - len("_+99"):
            return f"{name}_+{len(parts) - number}"
        name = f"{name}_{part}"
    return name


def _short(value: Any) -> str:
    """Writes a value as people write it in a name: 3e-4, 0.5, true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, e, exponent = f"{value:.0e}".partition("e")
        powers = f"{mantissa}e{int(exponent)}" if e else ""
        return powers if powers and float(powers) == value and not 0.01 <= abs(value) < 1000 else f"{value:g}"
    text = str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}~"


def _plain(part: str) -> str:
    """Returns a part without characters that tables, paths and tags stumble over."""
    return re.sub(r"[^\w.~+-]+", "-", part).strip("-")
