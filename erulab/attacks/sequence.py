"""Runs attacks one after another: each works on the model that the previous one changed."""

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
    """`options`: step name -> the options that differ from its defaults, such as {relearn: {lr: [1e-3]}}."""

    name: str = NAME
    steps: list[str] = field(default_factory=lambda: ["quantize", "relearn"])  # attacks, in this order
    options: Any = None  # Any, because Hydra adds keys to a typed dict only with a +

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
                "attacks that change weights, except for the last (the next step starts from a changed model)",
                repr(name),
            )
        named = self.options is None or isinstance(self.options, dict)
        require(named, "options", "null or options by attack, such as {relearn: {lr: [1e-3]}}", self.options)
        for name in self.options or {}:
            require(name in steps, "options", f"of attacks that attack.{NAME}.steps names", repr(name))
        self.step_options()

    def step_options(self) -> list[Any]:
        """Returns the options of each step, typed and checked.

        Raises:
            ConfigError: an unknown key, or a value that is not allowed.
        """
        return [_step_options(name, (self.options or {}).get(name, {})) for name in self.steps]


def every_options(chosen: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the options of all attacks of a run; those of its steps in place of a sequence's own."""
    for options in chosen.values():
        if isinstance(options, SequenceOptions):
            yield from options.step_options()
        else:
            yield options


@attacks.register(NAME, SequenceOptions, needs="steps that change weights, the last one any")
class AttackSequence(Attack):
    """Several attacks, each on the model that the last attempt of the previous one changed."""

    changes_weights = True

    def __init__(self, options: SequenceOptions) -> None:
        self.names = options.steps
        self.steps: list[Attack] = [attacks.build(one) for one in options.step_options()]
        self.repeats = max(step.repeats for step in self.steps)
        self.reads_target = any(step.reads_target for step in self.steps)
        self.one_attempt_for_all_models = self.steps[-1].one_attempt_for_all_models

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        """Returns every combination of the steps' settings, with keys `<step>.<key>`."""
        each = [
            [{f"{name}.{key}": value for key, value in one.items()} for one in step.settings(benchmark, seed)]
            for name, step in zip(self.names, self.steps, strict=True)
        ]
        combinations = itertools.product(*each)
        return [{"steps": self.names, **{k: v for part in parts for k, v in part.items()}} for parts in combinations]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        """Returns the last step's suites with the rows that every step scores; relearned rows are left out."""
        *earlier, suites = [
            step.scored(_step_setting(setting, name), benchmark, repeat)
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
        left: dict[str, float] = {}
        for name, step in zip(self.names[:-1], self.steps[:-1], strict=True):
            *_, last = step.attempts(changed or subject, _step_setting(setting, name), lab)
            if last.changed is None:
                raise ConfigError(f"attack.{NAME}.steps: {name} left no changed model here; make it the last step")
            taken, changed = taken + last.steps, last.changed
            left = {**left, **last.left_alone}
        for attempt in self.steps[-1].attempts(changed or subject, _step_setting(setting, self.names[-1]), lab):
            yield replace(
                attempt,
                changed=attempt.changed or changed,
                steps=taken + attempt.steps,
                # What one step leaves alone has not been through all of the sequence.
                left_alone={**left, **attempt.left_alone},
            )


def _step_options(name: str, values: Any) -> Any:
    """Returns one step's options: its defaults, changed by `values`."""
    key = f"attack.{NAME}.options.{name}"
    if not isinstance(values, dict):
        raise ConfigError(f"{key} must be options by name, got {values!r}; type '{key}={{KEY: VALUE}}'")
    if "name" in values:
        raise ConfigError(f"{key}.name: a step's name is not an option; name it in attack.{NAME}.steps")
    return fill(attacks[name].options, values, key)


def _step_setting(setting: Setting, name: str) -> Setting:
    """Returns one step's part of the setting."""
    return {key.removeprefix(f"{name}."): value for key, value in setting.items() if key.startswith(f"{name}.")}
