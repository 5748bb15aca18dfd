"""A judge's answers in a file that grows by one line per answer, so that a killed run asks nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from erulab.evaluation.judging.prompt import read_verdict


@dataclass(frozen=True)
class Answer:
    """What a judge said to one prompt.

    text: its answer as it came; "" if it could not read the prompt.
    log_odds: of yes against no, nats; None if the judge told only its words.
    """

    prompt: str
    text: str
    log_odds: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the response holds the fact; None if the answer says neither yes nor no."""
        return read_verdict(self.text)


class Judge(Protocol):
    """A model that answers prompts of `judge_prompt`."""

    def ask(self, prompts: Sequence[str], keep: Callable[[Answer], None], stopped: Callable[[], bool]) -> None:
        """Asks about each prompt; returns before it has asked about all of them if `stopped` turns true.

        Args:
            prompts: different from one another.
            keep: is given each answer as soon as it is known, in any order.
            stopped: whether the user wants the run to end.
        Raises:
            EnvironmentFault: the judge cannot be asked.
        """
        ...


class AnswerFile:
    """Answers by prompt, in a file of one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Answer]:
        """Reads all answers by prompt. A last line that a crash cut short is left out."""
        if not self._path.is_file():
            return {}
        whole, _, _ = self._path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
        answers = [Answer(**json.loads(line)) for line in whole.split("\n") if line]
        return {answer.prompt: answer for answer in answers}

    def write(self, answers: Mapping[str, Answer]) -> None:
        """Writes the file anew with these answers, whole or not at all; then more can be added to it."""
        working = self._path.with_suffix(".tmp")
        working.write_text("".join(map(_line, answers.values())), encoding="utf-8")
        os.replace(working, self._path)

    def add(self, answer: Answer) -> None:
        """Adds an answer, which survives if the process is killed."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(answer))


def _line(answer: Answer) -> str:
    # JSON escapes every line break inside a text.
    plain = {"prompt": answer.prompt, "text": answer.text, "log_odds": answer.log_odds}
    return json.dumps(plain, ensure_ascii=False) + "\n"
