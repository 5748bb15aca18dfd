"""Has other programs ask and score the models of a run: benchmarks that have no rows (`benchmark=lm_eval`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab.errors import ErulabError
from erulab.evaluation.external.base import ExternalBenchmark, ExternalScores
from erulab.registry import benchmarks
from erulab.reporting.console import announce
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.training.loader import ModelRef

VERSION = 1  # part of the cache key: a new number asks every model again
SCORES = "scores.json"


def external_content(context: Context, benchmark: ExternalBenchmark) -> dict[str, Any]:
    """Returns what identifies the questions of a benchmark. Rank 0 loads them, and all ranks get the same.

    Raises:
        ConfigError, DataError: on all ranks; as `ExternalBenchmark.content`.
    """
    found: dict[str, Any] | None = None
    fault: ErulabError | None = None
    if context.ranks.first:
        try:
            found = benchmark.content()
        except ErulabError as error:  # told to the other ranks, which would wait for this one otherwise
            fault = error
    found, fault = context.ranks.gather_objects((found, fault))[0]
    if fault is not None:
        raise fault
    assert found is not None
    return found


def score_externally(context: Context, role: str, ref: ModelRef) -> tuple[dict[str, ExternalScores], list[Product]]:
    """Has every external benchmark score one model; returns the scores by the benchmark's name.

    Rank 0 alone holds the model and runs the other program, and the other ranks wait. Scores are cached under the
    model's key and the content of the questions. What the program computes is in no ledger: its FLOPs are not counted,
    its seconds are.
    """
    scores, products = {}, []
    for benchmark in context.external_benchmarks:
        context.stop.check()
        product = _produce(context, benchmark, role, ref)
        scores[benchmark.name] = _read(product.folder / SCORES)
        products.append(product)
    return scores, products


def details(scores: Mapping[str, Mapping[str, ExternalScores]]) -> dict[str, dict[str, Any]]:
    """Returns the versions and settings of every external benchmark, as its file in the run folder holds them.

    Args:
        scores: role -> the benchmark's name -> its scores of that model.
    """
    names = dict.fromkeys(name for found in scores.values() for name in found)
    return {name: {role: found[name].details for role, found in scores.items()} for name in names}


def _produce(context: Context, benchmark: ExternalBenchmark, role: str, ref: ModelRef) -> Product:
    depends_on = {
        "stage": "external",
        "version": VERSION,
        "model": ref.key,
        "chat": context.chat.identity(),
        "asked": benchmark.identity(Path(context.config.cache)),
        "content": external_content(context, benchmark),
        "code": benchmarks[benchmark.name].code,  # of a user's own plugin
    }

    def make(folder: Path) -> None:
        if not context.ranks.first:
            return
        announce(f"{benchmark.name} asks the {'unlearned model' if role == 'unlearned' else role}")
        found = benchmark.score(context.loader.load(ref), context.source.overrides.system)
        (folder / SCORES).write_text(json.dumps(asdict(found)))

    return context.cache.produce("external", depends_on, make, rerun=context.config.rerun)


def _read(file: Path) -> ExternalScores:
    plain = json.loads(file.read_text())
    intervals = {name: (low, high) for name, (low, high) in plain["intervals"].items()}
    return ExternalScores(plain["figures"], intervals, plain["details"])
