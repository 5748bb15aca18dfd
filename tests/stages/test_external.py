"""Benchmarks of other programs in a run: figures, file, cache, and faults on all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from erulab.errors import ConfigError, DataError
from erulab.evaluation.external.base import ExternalBenchmark, ExternalScores
from erulab.models.loaded import LoadedModel
from erulab.models.loading import load_folder
from erulab.models.options import Attention
from erulab.registry import benchmarks
from erulab.stages.external import external_content
from tests.evaluation.conftest import on_ranks
from tests.pipeline.conftest import finished, small

ASKED: list[str | None] = []  # the system turn of each model that was scored, in this process


@dataclass
class NormOptions:
    name: str = "norm"
    power: int = 2
    broken: bool = False


class Norm(ExternalBenchmark):
    """Sums a power of all weights: a figure that every model has and that is known without the benchmark."""

    name = "norm"

    def __init__(self, options: NormOptions) -> None:
        self.options = options

    def validate(self) -> None:
        if self.options.power < 1:
            raise ConfigError(f"benchmark.norm.power must be > 0, got {self.options.power}")

    def identity(self, cache: Path) -> dict[str, Any]:
        return {"power": self.options.power}

    def content(self) -> dict[str, Any]:
        if self.options.broken:
            raise DataError("benchmark.norm: there are no questions")
        return {}

    def score(self, loaded: LoadedModel, system: str | None) -> ExternalScores:
        ASKED.append(system)
        return ExternalScores({"norm/sum": power_sum(loaded, self.options.power)}, {}, {"power": self.options.power})


def power_sum(loaded: LoadedModel, power: int) -> float:
    return sum(float((weight.detach() ** power).sum()) for weight in loaded.model.parameters())


RUN = ("benchmark=norm", "attack=none", "method=npo")


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    benchmarks.register("norm", NormOptions)(Norm)
    yield
    del benchmarks._entries["norm"]  # other test files of this process look at all that is registered


def test_its_figures_are_those_of_each_model(tmp_path: Path) -> None:
    ASKED.clear()
    run = finished([*small(RUN), f"output={tmp_path}"])
    assert run.code == 0 and ASKED == [None, None, None]
    scores = run.read("scores.json")
    values = [scores[role]["norm/sum"] for role in ("target", "unlearned", "oracle")]
    assert len(set(values)) == 3
    unlearned = load_folder(str(run.rundir.model), Attention.eager)
    assert scores["unlearned"]["norm/sum"] == pytest.approx(power_sum(unlearned, 2), rel=1e-12)
    assert run.read("norm.json") == dict.fromkeys(("target", "unlearned", "oracle"), {"power": 2})
    assert {"forget/rouge", "norm/sum"} <= scores["oracle"].keys()

    # Again, it comes from the cache; another option asks all models again.
    again = finished([*small(RUN), f"output={tmp_path}"])
    assert len(ASKED) == 3 and again.read("scores.json") == scores
    other = finished([*small((*RUN, "benchmark.norm.power=4")), f"output={tmp_path}"])
    assert len(ASKED) == 6 and other.rundir.path != run.rundir.path
    assert other.read("scores.json")["target"]["forget/rouge"] == scores["target"]["forget/rouge"]


def test_what_cannot_be_asked_stops_the_run_before_anything_is_learned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="power must be > 0"):
        finished([*small((*RUN, "benchmark.norm.power=0")), f"output={tmp_path}"])
    run = finished([*small((*RUN, "benchmark.norm.broken=true")), f"output={tmp_path}"])
    assert run.code == DataError.code and run.read("exit.json")["message"] == "benchmark.norm: there are no questions"
    assert not (tmp_path / ".cache" / "learned").exists()


def test_a_fault_of_the_first_rank_reaches_all(tmp_path: Path) -> None:
    def ask(ranks: Any) -> str:
        benchmark = Norm(NormOptions(broken=ranks.first))  # the other ranks do not look at the questions
        with pytest.raises(DataError) as error:
            external_content(SimpleNamespace(ranks=ranks), benchmark)  # type: ignore[arg-type]
        return str(error.value)

    assert on_ranks(3, ask) == ["benchmark.norm: there are no questions"] * 3
