"""The half of the facts that a run's figures are of (`evaluation.facts`): what it needs, and what the report says."""

from __future__ import annotations

from erulab.attacks.halves import forgotten_facts
from erulab.errors import DataError
from erulab.evaluation.suites import FORGET_ROLES
from erulab.options import Facts
from erulab.stages.context import Context
from erulab.stages.step_judge import may_have_log_odds

NOTES = {
    Facts.validation: "figures are of the half of the facts that chooses settings; report those of the other half",
    Facts.reported: "figures are of the half of the facts that chose no settings",
}


def check_half(context: Context) -> None:
    """Checks that the data set has facts to split, and for tuning that knowledge left can choose by them.

    Raises:
        DataError: it has not.
    """
    facts = context.config.evaluation.facts
    if facts is Facts.all:
        return
    if len(forgotten_facts(context.data.fitted)) < 2:
        raise DataError(
            f"evaluation.facts={facts.value} needs two facts to forget or more, one for each half; type "
            "evaluation.facts=all"
        )
    suites = [suite for suite in context.data.selected.suites if suite.role in FORGET_ROLES]
    if facts is Facts.validation and not any(may_have_log_odds(suite) for suite in suites):
        raise DataError(
            "evaluation.facts=validation chooses settings by knowledge left, and no forget row that is measured has "
            "wrong answers; type evaluation.facts=all to score it without a search"
        )


def notes_on_half(context: Context) -> list[str]:
    """Returns a note if figures are of one half of the facts only."""
    facts = context.config.evaluation.facts
    return [NOTES[facts]] if facts in NOTES else []
