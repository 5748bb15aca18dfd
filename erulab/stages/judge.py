"""Lets a judge model say which generated responses hold their facts (`evaluation.judge`)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erulab.errors import EnvironmentFault, ErulabError
from erulab.evaluation.judging.answers import Answer, AnswerFile, Judge
from erulab.evaluation.judging.endpoint import EndpointJudge
from erulab.evaluation.judging.local import LocalJudge
from erulab.evaluation.judging.prompt import VERSION
from erulab.evaluation.judging.verdicts import (
    WORST,
    Verdict,
    control_figures,
    control_prompts,
    judge_prompts,
    judged_figures,
    judged_rows,
    with_judged,
    worst_interval,
)
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import without_facts
from erulab.models.folders import folder_identity
from erulab.models.loading import load_folder
from erulab.options import JudgeOptions
from erulab.reporting.progress import counting
from erulab.stages.cache import Product
from erulab.stages.context import Context

KIND = "judged"
FILE = "answers.jsonl"
LEAST_DIFFERENCE = 0.5  # between the shares of right and wrong answers that a judge of any use accepts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """The verdicts on the responses of all models.

    rows: role -> row scores of the data set and of each extra benchmark, with the figure `judged` where there is one.
    figures: role -> figures over several suites, for scores.json.
    intervals: role -> figure over several suites -> its 95 % interval.
    lines: the content of judged.jsonl.
    products: one with the judge's answers on its own test, and one of each model.
    """

    rows: dict[str, list[list[RowScore]]]
    figures: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    lines: list[dict[str, Any]]
    products: list[Product]


def judge_responses(context: Context, rows: Mapping[str, Sequence[list[RowScore]]]) -> Judged:
    """Asks the judge about the responses of every model on the data set, as far as the cache lacks its answers.

    Figures over several suites leave out the facts that chose the step, with `trainer.keep=best`.

    Args:
        rows: role -> row scores of the data set and of each extra benchmark.
    Raises:
        EnvironmentFault: the judge cannot be asked.
        Interrupted: the user stopped the run; answers so far are kept.
    """
    asked = judged_rows(context.data.selected, context.config.evaluation)
    asking = _Asking(context)
    right, wrong = control_prompts(asked)
    control = asking.product("answers that are known to be right or wrong", {*right, *wrong})
    known = AnswerFile(control.folder / FILE).read()
    of_judge = control_figures([known[prompt] for prompt in right], [known[prompt] for prompt in wrong])
    _warn_of_a_bad_judge(of_judge)
    judged = Judged({}, {}, {}, [], [control])
    for role, scored in rows.items():
        prompts = judge_prompts(scored[0], asked)
        whose = "unlearned model" if role == "unlearned" else role
        product = asking.product(f"responses of the {whose}", {prompt for _, prompt in prompts if prompt})
        answers = AnswerFile(product.folder / FILE).read()
        asking.known |= answers
        verdicts = [Verdict(row, prompt, answers[prompt] if prompt else None) for row, prompt in prompts]
        left = {(row.suite, row.id) for row in without_facts(scored[0], context.unreported_facts)}
        reported = [one for one in verdicts if (one.row.suite, one.row.id) in left]
        interval = worst_interval(reported, role)
        judged.rows[role] = [with_judged(scored[0], verdicts), *scored[1:]]
        judged.figures[role] = judged_figures(reported) | of_judge
        judged.intervals[role] = {} if interval is None else {WORST: interval}
        judged.lines.extend(one.to_json(role) for one in verdicts)
        judged.products.append(product)
    return judged


class _Asking:
    """Asks the run's judge, which is loaded only if an answer is missing, and then once for all models.

    known: answers about the models before, who often gave the same response.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.known: dict[str, Answer] = {}
        self._judge: Judge | None = None

    def product(self, what: str, prompts: Collection[str]) -> Product:
        """Returns the product with the judge's answers to some prompts.

        Args:
            what: what they ask about, for the line that is printed.
        """
        context, ordered = self._context, sorted(prompts)
        depends_on = {
            "stage": "judge",
            "version": VERSION,
            "judge": judge_identity(context.config.evaluation.judge),
            "prompts": hashlib.sha256(json.dumps(ordered).encode()).hexdigest(),
        }

        def make(folder: Path) -> None:
            self._ask(what, ordered, AnswerFile(folder / FILE))

        return context.cache.produce(KIND, depends_on, make, rerun=context.config.rerun)

    def _ask(self, what: str, prompts: Sequence[str], file: AnswerFile) -> None:
        context, ranks = self._context, self._context.ranks
        if ranks.first:
            file.write({**file.read(), **{prompt: self.known[prompt] for prompt in prompts if prompt in self.known}})
        kept = ranks.gather_objects(file.read() if ranks.first else {})[0]
        missing = [prompt for prompt in prompts if prompt not in kept]
        answered = 0

        def keep(answer: Answer) -> None:
            nonlocal answered
            answered += 1
            if ranks.first:
                file.add(answer)
                bar.count("answered", answered, len(missing))

        fault: ErulabError | None = None
        # A local judge runs on all ranks together; a server is asked by the first one, for which the others wait.
        if missing and (ranks.first or context.config.evaluation.judge.model is not None):
            try:
                self._judge = self._judge or _make_judge(context)
                opening = f"asking the judge about {len(missing)} {what}"
                with counting("asking the judge", opening, enabled=ranks.first) as bar:
                    bar.count("answered", 0, len(missing))
                    self._judge.ask(missing, keep, lambda: context.stop.requested)
            except ErulabError as error:  # told to the other ranks, which would wait for this one otherwise
                fault = error
        told = ranks.gather_objects((fault, context.stop.requested))
        for known_fault, _ in told:
            if known_fault is not None:
                raise known_fault
        if any(requested for _, requested in told):
            context.stop.interrupt("stopped while the judge answers")


def judge_identity(options: JudgeOptions) -> dict[str, Any]:
    """Returns what the answers of a judge depend on: a local model's content, or a server's address and model name.

    A server can change the model behind a name, which nobody can see from outside.
    """
    if options.model is not None:
        return {"model": folder_identity(options.model)}
    return {"url": options.url, "model": options.url_model, "max_new_tokens": options.max_new_tokens}


def _warn_of_a_bad_judge(figures: Mapping[str, float]) -> None:
    if figures and figures["judged/accepts_right"] - figures["judged/accepts_wrong"] < LEAST_DIFFERENCE:
        log.warning(
            "evaluation.judge: the judge accepts %.0f %% of the data set's right answers and %.0f %% of its wrong "
            "ones, so its figures say little; take a larger judge",
            100 * figures["judged/accepts_right"],
            100 * figures["judged/accepts_wrong"],
        )


def _make_judge(context: Context) -> Judge:
    """Loads the local model, or prepares to ask the server.

    Raises:
        EnvironmentFault: the key's variable is not set in this process; or the model cannot be had.
        DataError, IntegrityFault: as for every model that erulab loads.
    """
    options = context.config.evaluation.judge
    if options.model is not None:
        loaded = load_folder(options.model, context.config.model.attention)
        loaded.policy.to(context.device).eval()
        counted = dataclasses.replace(loaded, ledger=context.ledger)
        return LocalJudge(counted, context.config.evaluation.fixed_tokens, context.ranks)
    key = None
    if options.key_variable is not None:
        key = os.environ.get(options.key_variable)
        if not key:
            raise EnvironmentFault(
                f"evaluation.judge.key_variable={options.key_variable}: this variable is not set where the run works; "
                f"export {options.key_variable}=KEY there, and the same command goes on"
            )
        if not re.fullmatch("[!-~]+", key):
            raise EnvironmentFault(
                f"the key in the variable {options.key_variable} holds a space or another character that no key has; "
                "export it anew"
            )
    return EndpointJudge(options, key)


def judged_text(lines: Sequence[dict[str, Any]]) -> str:
    """Returns the text of judged.jsonl."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
