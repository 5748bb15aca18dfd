"""The attacks of a run with their settings, and the suites that each is scored on."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.attacks.base import Attack, Inapplicable, Repeat, Setting
from erulab.attacks.judging.scoring import merge_suites, utility_suite
from erulab.data.rows import Suite
from erulab.errors import DataError
from erulab.evaluation.suites import has_knowledge_figure
from erulab.registry import attacks
from erulab.stages.context import Context


@dataclass(frozen=True)
class AttackPlan:
    """The attacks of a run with their settings.

    settings: (attack, setting) of everything that runs.
    refused: attack -> why it cannot run here.
    """

    built: dict[str, Attack]
    settings: list[tuple[str, Setting]]
    refused: dict[str, str]


def plan_attacks(context: Context) -> AttackPlan:
    """Builds the attacks and asks each for its settings.

    Raises:
        DataError: an attack cannot be run as its options say, no attack can be run here, or one could not be judged.
    """
    config, benchmark = context.config, context.data.selected
    utility_suite(benchmark, config.evaluation)
    built: dict[str, Attack] = {name: attacks.build(options) for name, options in config.attack.items()}
    settings: list[tuple[str, Setting]] = []
    refused: dict[str, str] = {}
    for name, one in built.items():
        try:
            settings += [(name, setting) for setting in one.settings(benchmark, config.seed)]
        except Inapplicable as why:
            if len(built) == 1:
                raise
            refused[name] = f"not run: {why}"
    if not settings:
        raise DataError("; ".join(f"attack={name} is {why}" for name, why in refused.items()))
    planned = AttackPlan(built, settings, refused)
    for name, setting in settings:
        suites = merge_suites(scored_suites(planned, context, name, setting))
        scored = any(suite.rows and has_knowledge_figure(suite, config.evaluation) for suite in suites)
        if not (scored or built[name].own_figures):
            raise DataError(
                f"attack={name} is judged by log-odds, probability or generated answers of forget rows, and no "
                "suite that is measured has one; see evaluation.suites and evaluation.generate, or type attack=none"
            )
    return planned


def scored_suites(planned: AttackPlan, context: Context, name: str, setting: Setting) -> list[tuple[Suite, ...]]:
    """Returns the scored suites of each repeat of a setting."""
    one, config = planned.built[name], context.config
    return [one.scored(setting, context.data.selected, Repeat(config.seed, i)) for i in range(one.repeats)]


def every_scored_suite(planned: AttackPlan, context: Context) -> list[Suite]:
    """Returns the suites with every forget row that some setting is scored on."""
    return merge_suites(
        [suites for name, setting in planned.settings for suites in scored_suites(planned, context, name, setting)]
    )
