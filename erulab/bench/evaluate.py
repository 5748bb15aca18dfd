"""Scores a model on TOFU with erulab and the plain way in one process: times, and whether the figures agree."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from erulab.bench import measure
from erulab.bench.plain_evaluation import PlainEvaluation
from erulab.config.compose import compose_config
from erulab.costs.ledger import forget_peak_memory, peak_memory
from erulab.data.measures import Answers
from erulab.data.rows import Benchmark
from erulab.evaluation.aggregate import aggregate
from erulab.evaluation.budget import choose_budget
from erulab.evaluation.evaluate import evaluate
from erulab.models.loaded import LoadedModel
from erulab.models.options import Attention
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from erulab.registry import datasets, models
from erulab.tokens.encoder import Encoder
from erulab.tokens.truncation import truncate_to_context

DEFAULTS = ("model=smollm2_135m", "dataset=tofu", "attack=none", "tracker=none")
EXPLANATION = """\
Without evaluation.batch_tokens=N, erulab chooses its tokens per forward itself, as a run does.
seconds: of the median round; the two ways take turns.
teacher-forced: probability, truth ratio, extraction strength, exact memorisation of each suite.
generated: ROUGE-L recall and exact match, which may differ where two tokens are equally likely."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"as for erulab.run; {' '.join(DEFAULTS)}")
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="first rows of each suite: 20")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="rounds of both ways: 1")


def run(options: argparse.Namespace) -> None:
    """Scores the model both ways, `--rounds` times; prints times, ratios and differences."""
    config = compose_config([*DEFAULTS, *options.overrides])
    source = models.build(config.model)
    source.validate()
    folder = Path(config.cache)
    rows = datasets.build(config.dataset).load(config.seed, folder)
    loaded = source.load(rows, config.seed)
    loaded.policy.to(measure.DEVICE).eval()
    benchmark = truncate_to_context(rows, Encoder(loaded.chat, rows.max_length, folder), folder)
    # Only suites that the plain way computes too: membership inference is not among them.
    suites = tuple(
        dataclasses.replace(suite, rows=suite.rows[: options.rows])
        for suite in benchmark.suites
        if isinstance(suite.measure, Answers)
    )
    benchmark = dataclasses.replace(benchmark, suites=suites)
    print(
        f"{config.model.name} on {config.dataset.name}, {sum(len(suite.rows) for suite in suites)} rows of "
        f"{len(suites)} suites, {torch.get_num_threads()} threads",
        flush=True,
    )
    budget = choose_budget(loaded, config.evaluation, Ranks())
    print(f"tokens per forward: {budget.scoring} scored, {budget.generation} in a batch of generation", flush=True)
    model = copy.deepcopy(loaded.model)
    model.set_attn_implementation(Attention.sdpa.value)  # transformers' own
    plain = PlainEvaluation(dataclasses.replace(loaded, model=model), config.evaluation.max_new_tokens)
    ways = {
        "erulab": TimedScoring(lambda: _score_with_erulab(loaded, benchmark, config.evaluation)),
        "plain, teacher-forced": TimedScoring(lambda: plain.forced(suites)),
        "plain, generated": TimedScoring(lambda: plain.generated(suites)),
    }
    generation = WatchedGeneration(loaded)
    for _ in range(options.rounds):
        for name, way in ways.items():
            with generation.watch() if name == "erulab" else nullcontext():
                way.take()
    _print_table(ways["erulab"], generation.typical, ways["plain, teacher-forced"], ways["plain, generated"])
    print(generation.against_limit())
    print(f"erulab held at most {ways['erulab'].memory / 1e9:.2f} GB beyond what the process held before it")
    print(EXPLANATION)


@dataclass
class TimedScoring:
    """A way of scoring, with the seconds of each round and the figures of the last."""

    score: Callable[[], Mapping[str, float]]
    seconds: list[float] = field(default_factory=list)
    figures: Mapping[str, float] = field(default_factory=dict)
    memory: int = 0  # bytes at the peak of any round beyond those held before it

    def take(self) -> None:
        """Runs and times one round."""
        forget_peak_memory(measure.DEVICE.type)
        held = peak_memory(measure.DEVICE.type)
        self.seconds.append(measure.seconds(self._score))
        self.memory = max(self.memory, peak_memory(measure.DEVICE.type) - held)

    @property
    def typical(self) -> float:
        """Returns the seconds of the median round."""
        return statistics.median(self.seconds)

    def _score(self) -> None:
        self.figures = self.score()


class WatchedGeneration:
    """Times the forwards in which a model generates responses, counts them, and compares with reading its weights."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._model = loaded.model
        self._steps = self._tokens = 0  # of the last round
        self._first = 0.0  # when the first forward of the round began
        self._seconds: list[float] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Counts the forwards inside the context, one round; it ends when the responses have been judged."""
        self._steps = self._tokens = 0
        # Teacher-forced scoring runs the blocks without the head's module, so only generation calls the whole model.
        hooks = [self._model.register_forward_pre_hook(self._begin), self._model.register_forward_hook(self._count)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self._seconds.append(time.perf_counter() - self._first)

    @property
    def typical(self) -> float:
        """Returns the seconds of the median round, from the first forward of generation on."""
        return statistics.median(self._seconds)

    def _begin(self, model: torch.nn.Module, arguments: Any) -> None:
        if not self._steps:
            self._first = time.perf_counter()

    def _count(self, model: torch.nn.Module, arguments: Any, result: Any) -> None:
        self._steps += 1
        self._tokens += len(result.logits)

    def against_limit(self) -> str:
        """Returns a sentence that compares generation with the physical limit of reading the weights."""
        size = sum(weight.nbytes for weight in self._model.parameters())
        speed = measure.memory_bandwidth()
        once = size / speed
        return (
            f"generation: {self._tokens} tokens in {self._steps} forwards, {self.typical:.3g} s; reading the weights "
            f"({size / 1e9:.3g} GB at {speed / 1e9:.3g} GB/s) once per token takes {self._tokens * once:.3g} s, "
            f"once per forward {self._steps * once:.3g} s"
        )


def _score_with_erulab(loaded: LoadedModel, benchmark: Benchmark, options: EvaluationOptions) -> dict[str, float]:
    return aggregate(evaluate(loaded, benchmark.suites, options, Ranks()), benchmark)


def _print_table(ours: TimedScoring, ours_generated: float, forced: TimedScoring, generated: TimedScoring) -> None:
    lines = (
        (
            "teacher-forced",
            ours.typical - ours_generated,
            forced.typical,
            _largest_difference(ours.figures, forced.figures),
        ),
        ("generated", ours_generated, generated.typical, _largest_difference(ours.figures, generated.figures)),
        ("both", ours.typical, forced.typical + generated.typical, None),
    )
    print(f"{'figures':16}{'erulab s':>12}{'plain s':>12}{'time ratio':>12}{'differ by':>12}")
    for name, mine, other, difference in lines:
        shown = "" if difference is None else f"{difference:.0e}"
        print(f"{name:16}{mine:12.3g}{other:12.3g}{other / mine:12.2f}{shown:>12}")


def _largest_difference(ours: Mapping[str, float], plain: Mapping[str, float]) -> float:
    """Returns the largest absolute difference among the figures of the plain way."""
    return max(abs(ours[name] - value) for name, value in plain.items())
