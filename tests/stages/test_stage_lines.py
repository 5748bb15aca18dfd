"""Which stages a run counts, from the stages that it was typed to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from erulab.config.compose import compose_config
from erulab.options import Stage
from erulab.ranks import Ranks
from erulab.stages.context import Context
from erulab.stages.stage_lines import StageLines, shown_stages

MODELS = ("model=hf", "model.target=a/b", "model.oracle=c/d")


def context_of(*typed: str, rank: int = 0) -> Context:
    context = Context.__new__(Context)  # only what the lines read
    context.config, context.ranks = compose_config(list(typed)), Ranks(rank, 2)
    return context


@pytest.mark.parametrize(
    ("typed", "stages"),
    [
        ((), "target oracle unlearn evaluate attack report"),
        (("attack=none",), "target oracle unlearn evaluate report"),
        (("stages=[report,target]",), "target report"),
        (MODELS, "unlearn evaluate attack report"),
        ((*MODELS, "model.unlearned=e/f"), "evaluate attack report"),
        (("model=hf", "model.path=x/y", "model.target=a/b"), "oracle unlearn evaluate attack report"),
    ],
)
def test_only_stages_with_something_to_do_are_counted(typed: tuple[str, ...], stages: str) -> None:
    assert [stage.value for stage in shown_stages(context_of(*typed))] == stages.split()


def test_only_the_first_rank_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (1, 0):
        lines = StageLines(context_of(*MODELS, rank=rank), tmp_path)
        lines.begin(Stage.unlearn)
        lines.end(from_cache=True)
        lines.begin(Stage.evaluate)
        lines.end(from_cache=False)
    first, cached, second = capsys.readouterr().out.splitlines()
    assert (first, cached) == ("stage 1 of 4: unlearn", "  taken from the cache")
    assert second.startswith("stage 2 of 4: evaluate  (")
