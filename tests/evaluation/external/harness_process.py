"""Asks erulab's `LmEval` for scores and refusals: `python harness_process.py REQUEST.json ANSWER.json`.

It runs in the environment .venv-lm-eval, which has lm-evaluation-harness and sees the packages of .venv.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from erulab.errors import ErulabError
from erulab.evaluation.external.harness import LmEval, LmEvalOptions
from erulab.evaluation.external.harness_tasks import check_names, load_tasks, task_manager
from erulab.models.loading import load_folder
from erulab.models.options import Attention
from erulab.tokens.templates import PromptOverrides


def score(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the scores of the folder's model, and what identifies the questions."""
    benchmark = LmEval(LmEvalOptions(**request["options"]))
    benchmark.validate()
    overrides = PromptOverrides(system=request["system"])
    loaded = load_folder(request["model"], Attention.eager, overrides)
    scores = dataclasses.asdict(benchmark.score(loaded, request["system"]))
    return scores | {"identity": benchmark.identity(Path()), "content": benchmark.content()}


def refusal(call: Callable[..., object], *arguments: Any) -> str:
    try:
        call(*arguments)
    except ErulabError as error:
        return f"{type(error).__name__}: {error}"
    return "no refusal"


def main(request_file: Path, answer_file: Path) -> None:
    request = json.loads(request_file.read_text())
    manager = task_manager(request["scored"]["plain"]["options"]["include_path"])
    answer = {name: score(one) for name, one in request["scored"].items()}
    answer["refusals"] = {
        name: [refusal(check_names, manager, [name]), refusal(load_tasks, manager, name.split("+"))]
        for name in request["refused"]
    }
    answer_file.write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
