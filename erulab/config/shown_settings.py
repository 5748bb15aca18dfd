"""What a command prints before it runs: the choices, and the options that differ from their defaults.

The defaults are those that `python -m erulab.list` prints; a recipe or the trainer of a model can set others.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erulab import registry
from erulab.options import RunConfig, Stage
from erulab.redaction import redacted, redacted_text
from erulab.typed import value_text

PARTS = ("evaluation", "report", "artifacts")
# Options of `model` that are shown in other places.
OWN_LINES = ("name", "path", "target", "oracle", "unlearned")
REST = "all other options have their defaults"
OF_ONE = f"{REST}; the same command with --cfg job shows them, and nothing runs"
OF_SWEEP = f"{REST}; run.yaml in the folder of each job holds them"
LABEL = 11  # characters in front of a line's text


def settings_lines(configs: Sequence[RunConfig], folder: Path) -> list[str]:
    """Returns the lines about a run, or about what all jobs of a sweep have in common; secrets are redacted.

    Args:
        configs: of one run, or of the jobs of a sweep; one line names what differs between them.
        folder: of the run or the sweep.
    """
    first, *others = [_sections(config) for config in configs]
    common = {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}
    lines = [line for name, text in common.items() if text for line in _wrapped(name, text)]
    names = dict.fromkeys(name for sections in (first, *others) for name in sections)
    differing = [name for name in names if name not in common]
    if differing:
        lines += _wrapped("varied", ", ".join(differing))
    return [*lines, *_wrapped("folder", _printable(str(folder))), OF_SWEEP if others else OF_ONE]


def _sections(config: RunConfig) -> dict[str, str]:
    """Returns the text of each line of a run by its label; "" for one that has nothing to say."""
    made = not config.only_given_models  # otherwise the options that only make models have no effect
    sections = {"model": _model_text(config), "dataset": _plugin_text(config.dataset)}
    if made and Stage.unlearn in config.stages:
        sections["method"] = _plugin_text(config.method)
        for group in ("reward", "adversary"):
            options = getattr(config, group)
            sections[group] = "" if options.name == "none" else _plugin_text(options)
    if made:
        sections["trainer"] = _changed_text(config.trainer)
    sections |= dict(_models_text(config))
    for group in registry.LIST_GROUPS:
        if group == "benchmark" or Stage.attack in config.stages:
            chosen = getattr(config, group).items()
            sections[group] = "; ".join(_plugin_text(options, name) for name, options in chosen)
    sections |= {part: _changed_text(getattr(config, part)) for part in PARTS}
    for part in ("engine", "tracker"):  # chosen like plugins, by name
        name, options = getattr(config, part).name.value, getattr(config, part)
        # Without a tracker its other options, such as a sweep's group, mean nothing.
        changed = "" if name == "none" else _changed_text(options, without=("name",))
        sections[part] = f"{name} {changed}".strip()
    return sections | {"seed": str(config.seed), "run": _run_text(config)}


def _run_text(config: RunConfig) -> str:
    """Returns the changed options outside of all parts, such as stages, plugins and output."""
    alone = [field.name for field in dataclasses.fields(config) if field.name not in registry.GROUPS]
    own = {key: value for key, value in _changed(config).items() if key in alone}
    if own.get("cache") == f"{config.output}/.cache":  # unless it is named
        del own["cache"]
    return _typed(own, without=("seed",))


def _model_text(config: RunConfig) -> str:
    named = [config.model.name, *([] if config.model.path is None else [_printable(config.model.path)])]
    return " ".join(filter(None, (*named, _changed_text(config.model, without=OWN_LINES))))


def _models_text(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yields where target, oracle and unlearned model come from."""
    model, options = config.model, config.target
    given = {"target": model.target, "oracle": ", ".join(model.oracles) or None, "unlearned": model.unlearned}
    learned = [stage.value for stage in config.models_to_learn]
    for role, path in given.items():
        if path is not None:
            yield role, f"given: {_printable(path)}"
        elif role in learned:
            count = options.oracle_seeds if role == "oracle" else 1
            seeds = f"seed {options.seed}" if count == 1 else f"seeds {options.seed} to {options.seed + count - 1}"
            how = (
                _changed_text(options, without=("seed", "oracle_seeds"))
                if role == "target"
                else "with the options of target"
            )
            yield role, f"learned unless it is in the cache, {seeds}{f'; {how}' if how else ''}"


def _plugin_text(options: Any, name: str | None = None) -> str:
    """Returns a choice and its changed options: `npo beta=0.2`.

    Args:
        name: of a variant of an attack, such as relearn_retain; None: the plugin's own.
    """
    return " ".join(filter(None, (name or options.name, _changed_text(options, without=("name",)))))


def _changed_text(options: Any, without: Sequence[str] = ()) -> str:
    return _typed(_changed(options), without)


def _changed(options: Any) -> dict[str, Any]:
    """Returns dotted key -> value of the fields of a dataclass that differ from their defaults."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(value):
            changed |= {f"{field.name}.{key}": item for key, item in _changed(value).items()}
        elif value != default:
            changed[field.name] = value
    return changed


def _typed(values: Mapping[str, Any], without: Sequence[str] = ()) -> str:
    """Returns values as they are typed on the command line, without the lines and controls that a text may hold."""
    kept = {key: value_text(value) for key, value in values.items() if key not in without}
    return " ".join(f"{key}={_printable(text)}" for key, text in redacted(kept).items())


def _printable(text: str) -> str:
    """Returns a text without secrets and control characters, which a name or path may hold."""
    text = redacted_text(text, commits=True)
    return text if text.isprintable() else json.dumps(text)


def _wrapped(label: str, text: str) -> list[str]:
    width = max(shutil.get_terminal_size((120, 24)).columns, 40)
    return textwrap.wrap(
        f"{label:<{LABEL}}{text}",
        width,
        subsequent_indent=" " * LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )
