"""Figures of a judge's verdicts: the share of responses that hold the fact, and the worst case over phrasings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.figures.resampling import FactResamples, Samples, range_end, resampled_mean, samples_at_end
from erulab.evaluation.judging.answers import Answer
from erulab.evaluation.judging.prompt import judge_prompt
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import FORGET_ROLES, evaluated_rows, generates_responses
from erulab.options import EvaluationOptions

FIGURE, WORST = "judged", "judged_worst"
CONTROL_ROWS = 100  # the judge itself is tested on at most so many right and so many wrong answers


@dataclass(frozen=True)
class Verdict:
    """What a judge said about one response.

    answer: None for an empty response, which holds nothing: the judge is not asked.
    """

    row: RowScore
    prompt: str
    answer: Answer | None

    @property
    def holds(self) -> bool | None:
        """Whether the response holds the fact; None if the judge said neither yes nor no."""
        return False if self.answer is None else self.answer.holds

    def to_json(self, model: str) -> dict[str, Any]:
        """Returns a line of judged.jsonl.

        Args:
            model: whose response it is: target, unlearned or oracle.
        """
        words = {True: "yes", False: "no", None: "unjudged"}
        return {
            "model": model,
            "suite": self.row.suite,
            "id": self.row.id,
            "fact": self.row.fact,
            "prompt": self.prompt,
            "answer": None if self.answer is None else self.answer.text,
            "log_odds": None if self.answer is None else self.answer.log_odds,
            "verdict": words[self.holds],
        }


def judged_rows(benchmark: Benchmark, options: EvaluationOptions) -> dict[tuple[str, str], Row]:
    """Returns the rows whose responses are judged, by suite and row id: questions on forgotten and retained facts.

    Running text asks for no fact, and a suite without a figure of knowledge (fluency) has no right answer.
    """
    roles = (*FORGET_ROLES, Role.RETAIN)
    return {
        (suite.name, row.id): row
        for suite in benchmark.suites
        if suite.role in roles and _asks_for_facts(suite, options)
        for row in evaluated_rows(suite, options)
        if row.prompt and not row.plain
    }


def judge_prompts(rows: Iterable[RowScore], asked: Mapping[tuple[str, str], Row]) -> list[tuple[RowScore, str]]:
    """Returns the scored rows that are judged, each with its prompt; "" where the response is empty."""
    return [
        (row, judge_prompt(asked[row.suite, row.id], row.response) if row.response.strip() else "")
        for row in rows
        if (row.suite, row.id) in asked
    ]


def control_prompts(asked: Mapping[tuple[str, str], Row]) -> tuple[list[str], list[str]]:
    """Returns prompts with answers of the data set's own, which tell how often the judge itself is right.

    Args:
        asked: rows by suite and id; the first that have wrong answers are taken.
    Returns:
        Prompts with right answers (the paraphrase where a row has one), and prompts with wrong ones.
    """
    rows = [row for row in dict.fromkeys(asked.values()) if _wrong_answer(row) is not None][:CONTROL_ROWS]
    right = [judge_prompt(row, row.paraphrase or row.response) for row in rows]
    wrong = [judge_prompt(row, _wrong_answer(row) or "") for row in rows]
    return right, wrong


def control_figures(right: Sequence[Answer], wrong: Sequence[Answer]) -> dict[str, float]:
    """Returns the shares of right and of wrong answers that the judge says hold the fact; {} without any.

    A judge that is always right accepts all right answers and no wrong one.
    """
    if not right:
        return {}
    return {
        "judged/accepts_right": sum(answer.holds is True for answer in right) / len(right),
        "judged/accepts_wrong": sum(answer.holds is True for answer in wrong) / len(wrong),
    }


def with_judged(rows: Sequence[RowScore], verdicts: Iterable[Verdict]) -> list[RowScore]:
    """Returns copies of the scored rows with the figure `judged`: 1 if the response holds the fact, otherwise 0.

    Rows that are not judged, and those about which the judge said neither yes nor no, do not get it.
    """
    found = {(one.row.suite, one.row.id): float(one.holds) for one in verdicts if one.holds is not None}
    return [
        dataclasses.replace(row, figures=row.figures | {FIGURE: found[row.suite, row.id]})
        if (row.suite, row.id) in found
        else row
        for row in rows
    ]


def judged_figures(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Returns the figures over several suites.

    `judged_worst` is the share of forgotten facts that the response to at least one of their phrasings holds, on
    forget and held-out suites; `judged_worst/n` counts the facts; `judged/unjudged` counts the responses about which
    the judge said neither yes nor no. A fact that no response is known to hold, with a response that is unjudged,
    does not count.
    """
    worst = [value for value in worst_of_phrasings(verdicts).values() if value is not None]
    figures: dict[str, float] = {WORST: sum(worst) / len(worst), f"{WORST}/n": len(worst)} if worst else {}
    return figures | {"judged/unjudged": sum(one.holds is None for one in verdicts)}


def worst_of_phrasings(verdicts: Iterable[Verdict]) -> dict[str, bool | None]:
    """Returns for each forgotten fact whether a response to any of its phrasings holds it; None if that is unknown."""
    roles = {role.value for role in FORGET_ROLES}
    facts: dict[str, list[bool | None]] = {}
    for one in verdicts:
        if one.row.role in roles:
            facts.setdefault(one.row.fact, []).append(one.holds)
    return {fact: True if True in known else None if None in known else False for fact, known in facts.items()}


def worst_interval(verdicts: Iterable[Verdict], role: str) -> tuple[float, float] | None:
    """Returns the 95 % interval of `judged_worst`: a bootstrap over facts, Wilson's where all facts agree.

    None if fewer than two facts count.

    Args:
        role: names the model, as for all intervals.
    """
    known = {fact: float(value) for fact, value in worst_of_phrasings(verdicts).items() if value is not None}
    if not known:
        return None
    values = np.array([*known.values()])
    end = range_end(values.tolist())
    if end is not None:
        samples = samples_at_end(end, len(known), role, WORST)
    else:
        sums, counts = FactResamples([*known]).resampled_sums(values[:, None])
        samples = Samples(resampled_mean(sums[:, 0], counts[:, 0]), len(known))
    return samples.interval(float(values.mean()))


def _wrong_answer(row: Row) -> str | None:
    """Returns an answer of the data set that is known to be wrong; None if the row has none."""
    if row.perturbed or row.options:
        return (row.perturbed or row.options)[0]
    if row.candidates:
        return row.prefix + row.candidates[0] + row.response[len(row.prefix) + len(row.value) :]
    return None


def _asks_for_facts(suite: Suite, options: EvaluationOptions) -> bool:
    return generates_responses(suite, options) and bool(suite.measure.knowledge)
