"""The best step of an unlearning so far, and its weights on disk beside the checkpoints (trainer.keep=best)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from erulab.checksums import find_fault, hash_files
from erulab.errors import IntegrityFault
from erulab.evaluation.row_score import RowScore
from erulab.models.shards import write_shards
from erulab.ranks import Ranks
from erulab.stages.cache import BEST
from erulab.stages.step_judge import StepJudge, StepScore

JUDGED = "judged.json"  # in that folder: the StepScore of its weights, and their SHA-256
KEPT = "kept.json"  # in a finished product: which step it is of


class BestStep:
    """Keeps the weights of the best step so far, one copy, each time whole or not at all.

    A run that is continued repeats the steps after its checkpoint, and finds here what it had kept before it stopped.
    That can be one of the steps that it repeats: better than all before it, so none of those takes its place.
    """

    def __init__(self, product: Path, judge: StepJudge, steps: int, ranks: Ranks) -> None:
        """
        Args:
            product: the folder of the unfinished product.
            judge: judges each step that is offered.
            steps: of the whole unlearning.
        """
        self._product, self._folder = product, product / BEST
        self._judge, self._steps, self._ranks = judge, steps, ranks
        self._best: StepScore | None = ranks.gather_objects(self._read())[0]

    def offer(
        self, step: int, rows: Sequence[RowScore], weights: Iterable[tuple[str, torch.Tensor]]
    ) -> dict[str, float]:
        """Judges a step and keeps its weights if it is better than all before it; all ranks must call it.

        Args:
            rows: row scores of its model.
            weights: `Engine.weights`, taken only if the step is kept.
        Returns:
            The metrics `keep/knowledge_left` and `keep/utility` of this step.
        """
        score, least = self._judge.judge(step, rows), self._judge.least
        if self._best is None or score.rank(least) < self._best.rank(least):
            self._write(score, weights)
            self._best = score
        left = np.nan if score.knowledge is None else score.knowledge
        return {"keep/knowledge_left": left, "keep/utility": score.utility}

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields names and whole weights of the best step, one at a time, on rank 0 only: as `Engine.weights` gave."""
        if not self._ranks.first:
            return
        for file in sorted(self._step_folder().glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118  # no mapping: it cannot be iterated itself
                    yield name, opened.get_tensor(name)

    def finish(self) -> None:
        """Writes to the product which step it is of."""
        if not self._ranks.first:
            return
        assert self._best is not None, "the last step is offered in every run"
        kept = {
            "kept/step": self._best.step,
            "kept/steps": self._steps,
            "kept/facts": self._judge.facts,
            "kept/knowledge_left": self._best.knowledge,
            "kept/utility": self._best.utility,
            "kept/least_utility": self._judge.least,
        }
        (self._product / KEPT).write_text(json.dumps(kept, indent=1), encoding="utf-8")

    def _step_folder(self) -> Path:
        # There are two if the process died before it removed the earlier one, and the later one is better.
        return max(self._folder.glob("step-*"))

    def _read(self) -> StepScore | None:
        if not self._ranks.first or not any(self._folder.glob("step-*")):
            return None
        folder = self._step_folder()
        try:
            judged = json.loads((folder / JUDGED).read_text(encoding="utf-8"))
            fault = find_fault(folder, judged["files"], without=(JUDGED,))
            score = StepScore(**judged["score"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            fault = f"{JUDGED} is damaged"
        if fault is not None:
            raise IntegrityFault(
                f"the best step so far, {folder}, cannot be used: {fault}; remove {self._product} to start anew"
            )
        return score

    def _write(self, score: StepScore, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        if not self._ranks.first:
            for _ in weights:  # gathering a parameter is a collective
                pass
            return
        writing = self._folder / ".writing"
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        write_shards(weights, writing, "weights")
        judged = {"score": asdict(score), "files": hash_files(writing)}
        (writing / JUDGED).write_text(json.dumps(judged), encoding="utf-8")
        for file in writing.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        earlier = list(self._folder.glob("step-*"))
        writing.rename(self._folder / f"step-{score.step:08d}")
        for folder in earlier:
            shutil.rmtree(folder)


def read_kept(product: Path) -> Mapping[str, Any]:
    """Returns which step a product is of, as figures of scores.json; {} if it is the model after the last step."""
    file = product / KEPT
    found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
