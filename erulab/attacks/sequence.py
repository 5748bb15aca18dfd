"""Attacks one after another: each works on the model that the one before it left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from erulab.attacks.base import Attack, Attempt, Lab, Repeat, Setting
from erulab.data.rows import Benchmark, Suite
from erulab.errors import ConfigError
from erulab.options import require
from erulab.registry import attacks
from erulab.typed import did_you_mean, fill

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel

NAME = "sequence"


@dataclass
class SequenceOptions:
    """`options`: what differs from a step's own defaults, by its name: {relearn: {lr: [1e-3]}}."""

    name: str = NAME
    steps: list[str] = field(default_factory=lambda: ["quantize", "relearn"])
    options: Any = None  # Any: Hydra lets nobody add keys to a typed dict without a +

    def __post_init__(self) -> None:
        steps, known = self.steps, [name for name in attacks.names() if name != NAME]
        several = bool(steps) and len(set(steps)) == len(steps)
        require(several, "steps", "a list of different attacks, such as [quantize,relearn]", steps)
        for name in steps:
            hint = did_you_mean(name, known)
            require(name in known, "steps", f"attacks out of {', '.join(known)}", f"{name!r}{hint}")
        for name in steps[:-1]:
            require(
                attacks[name].factory.changes_weights,
                "steps",
                "attacks that change weights, but for the last (the next one has nothing to go on from)",
                repr(name),
            )
        named = self.options is None or isinstance(self.options, dict)
        require(named, "options", "null or options by attack, such as {relearn: {lr: [1e-3]}}", self.options)
        for name in self.options or {}:
            require(name in steps, "options", f"of attacks that attack.{NAME}.steps names", repr(name))
        self.of_steps()

    def of_steps(self) -> list[Any]:
        """Each step's options, typed and checked.

        Raises:
            ConfigError: an unknown key, or a value that is not allowed.
        """
        return [_step_options(name, (self.options or {}).get(name, {})) for name in self.steps]


def every_options(chosen: Mapping[str, Any]) -> Iterator[Any]:
    """The options of all attacks of a run, those of a sequence's steps among them."""
    for options in chosen.values():
        if isinstance(options, SequenceOptions):
            yield from options.of_steps()
        else:
            yield options


@attacks.register(NAME, SequenceOptions, needs="steps that change weights, the last one any")
class Sequence(Attack):
    """Several attacks, each on the model that the last attempt of the one before it left."""

    changes_weights = True

    def __init__(self, options: SequenceOptions) -> None:
        self.names = options.steps
        self.steps: list[Attack] = [attacks.build(one) for one in options.of_steps()]
        self.repeats = max(step.repeats for step in self.steps)
        self.reads_target = any(step.reads_target for step in self.steps)
        self.alike = self.steps[-1].alike

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        """Every combination of the steps' settings, which it names `<step>.<key>`."""
        each = [
            [{f"{name}.{key}": value for key, value in one.items()} for one in step.settings(benchmark, seed)]
            for name, step in zip(self.names, self.steps, strict=True)
        ]
        return [{"steps": self.names, **_merged(parts)} for parts in itertools.product(*each)]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        """The last step's suites, cut to rows that every step leaves to be scored: what one relearns is not."""
        *earlier, suites = [
            step.scored(_own(setting, name), benchmark, repeat)
            for name, step in zip(self.names, self.steps, strict=True)
        ]
        for others in earlier:
            left = {suite.name: {row.id for row in suite.rows} for suite in others}
            suites = tuple(
                replace(suite, rows=tuple(row for row in suite.rows if row.id in left.get(suite.name, ())))
                for suite in suites
            )
        return suites

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        taken, changed = 0, None
        for name, step in zip(self.names[:-1], self.steps[:-1], strict=True):
            *_, last = step.attempts(changed or subject, _own(setting, name), lab)
            if last.changed is None:
                raise ConfigError(f"attack.{NAME}.steps: {name} left no changed model here; make it the last step")
            taken, changed = taken + last.steps, last.changed
        for attempt in self.steps[-1].attempts(changed or subject, _own(setting, self.names[-1]), lab):
            yield replace(attempt, changed=attempt.changed or changed, steps=taken + attempt.steps)


def _step_options(name: str, values: Any) -> Any:
    """Returns one step's options: its defaults, changed by `values`."""
    key = f"attack.{NAME}.options.{name}"
    if not isinstance(values, dict):
        raise ConfigError(f"{key} must be options by name, got {values!r}; type '{key}={{KEY: VALUE}}'")
    if "name" in values:
        raise ConfigError(f"{key}.name: a step's name is not an option; name it in attack.{NAME}.steps")
    return fill(attacks[name].options, values, key)


def _own(setting: Setting, name: str) -> Setting:
    """One step's setting out of the whole."""
    return {key.removeprefix(f"{name}."): value for key, value in setting.items() if key.startswith(f"{name}.")}


def _merged(parts: tuple[Setting, ...]) -> Setting:
    return {key: value for part in parts for key, value in part.items()}
