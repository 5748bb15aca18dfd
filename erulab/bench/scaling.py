"""Measures how cost grows: of a training step with its supervised tokens, of reading data with its rows."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, LlamaConfig

from erulab.adversaries.none import NoAdversaryOptions
from erulab.bench import pipeline
from erulab.methods.npo import NPOOptions
from erulab.models.attention import implementation
from erulab.models.options import Attention
from erulab.models.policy import Policy
from erulab.options import Precision, RunConfig, Schedule, TrainerOptions
from erulab.ranks import Ranks
from erulab.rewards.reference import ReferenceOptions
from erulab.tokens.batch import Encoded
from erulab.training.assembly import build_objective
from erulab.training.local import LocalEngine
from erulab.training.loop import LoopOptions, train
from erulab.training.reference import reference_table
from erulab.training.unlearning import References
from erulab.training.unlearning_batches import UnlearningRows

VOCABULARY = 2048
# Rows per step at one length, and lengths at one number of rows. A third of a row is its prompt.
ROW_COUNTS, LENGTH = (4, 8, 16, 32), 96
WARM = 2  # steps that are not timed: they also allocate
LENGTHS, ROWS = (24, 48, 96, 192), 16


@dataclass(frozen=True)
class Fit:
    """seconds = fixed + slope * tokens, by least squares."""

    fixed: float
    slope: float
    r_squared: float
    deviation: float  # the largest, as a share of the measured seconds


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument(
        "--rows",
        nargs="*",
        type=int,
        default=[1000, 10_000, 100_000, 1_000_000],
        metavar="N",
        help="rows of the generated data sets; none: leave that part out. 1000 10000 100000 1000000",
    )
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="timed steps per size, 0: none; default 5")
    parser.add_argument("--layers", type=int, default=2, metavar="N", help="of the model whose steps are timed: 2")
    parser.add_argument("--width", type=int, default=256, metavar="N", help="of that model, a multiple of 32: 256")


def run(options: argparse.Namespace) -> None:
    """Measures and prints both tables."""
    console = Console(width=150)
    if options.steps:
        policy = _random_policy(options.layers, options.width)
        for title, sizes in (
            (f"rows per step, {LENGTH} tokens per row", [(rows, LENGTH) for rows in ROW_COUNTS]),
            (f"tokens per row, {ROWS} rows per step", [(ROWS, length) for length in LENGTHS]),
        ):
            measured = _time_in_turn([_Steps(policy, *size, options.steps + WARM) for size in sizes], options.steps)
            console.print(_steps_table(title, sizes, measured))
        parameters = sum(p.numel() for p in policy.parameters())
        console.print(
            f"npo with reference and retain rows, a Llama of {parameters / 1e6:.1f} million parameters on "
            f"{policy.device}, {torch.get_num_threads()} threads; rows: forget and as many retain rows.\nseconds: the "
            f"fastest of {options.steps} steps with the optimizer's, sizes in turn; on CPUs of processor time, so that "
            "other jobs count little.\n"
        )
    if options.rows:
        console.print(_pipeline_table(options.rows))
        console.print(
            "read: files to checked rows. encode: token ids and the stages' keys. batches: "
            f"{pipeline.BATCHES} global batches of {pipeline.GLOBAL_BATCH}. us per row:\nprocessor time of all three. "
            "again: all of it in a second run, which finds rows and ids in the cache. Each in a process\nof its own. "
            "MB: anonymous memory (RssAnon) at its peak, above what the process had before; mapped files are not in it."
        )


def fit_line(tokens: Sequence[float], seconds: Sequence[float]) -> Fit:
    """Fits a line to the points (tokens, seconds)."""
    x, y = np.asarray(tokens, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    slope, fixed = np.polyfit(x, y, 1)
    residuals = y - (fixed + slope * x)
    spread = ((y - y.mean()) ** 2).sum()
    return Fit(float(fixed), float(slope), float(1 - (residuals**2).sum() / spread), float(np.abs(residuals / y).max()))


def _random_policy(layers: int, width: int) -> Policy:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=2 * max(LENGTHS),
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=implementation(Attention.sdpa, "llama")
        )
    return Policy(model.to("cuda" if torch.cuda.is_available() else "cpu"))


class _Steps:
    """Optimizer steps of npo on `count` forget and `count` retain rows of one length."""

    def __init__(self, policy: Policy, count: int, length: int, steps: int) -> None:
        # Prompts of their own: nothing is shared, so that every row costs its whole length.
        forget, retain = ([_random_row(part, i, length) for i in range(count)] for part in ("forget", "retain"))
        self.tokens = sum(row.tokens for row in (*forget, *retain))
        self.seconds: list[float] = []
        ranks = Ranks()
        with tempfile.TemporaryDirectory() as folder:
            table = reference_table(
                policy, "bench", forget, [], folder=Path(folder), pad_id=0, batch_tokens=8192, ranks=ranks
            )
        config = RunConfig(
            method=NPOOptions(),
            reward=ReferenceOptions(),
            adversary=NoAdversaryOptions(),
            trainer=TrainerOptions(global_batch=count, micro_tokens=2048),
        )
        rows = UnlearningRows(forget, [], retain)
        objective = build_objective(config, rows, policy, References(table), pad_id=0, ranks=ranks)
        engine = LocalEngine(policy, weight_decay=0.0, clip=1.0, precision=Precision.fp32)
        self._clock = time.perf_counter if policy.device.type == "cuda" else time.process_time
        self._steps = train(engine, objective, LoopOptions(1e-6, steps, 0.0, Schedule.constant, count), ranks)

    def take(self) -> None:
        started = self._clock()
        next(self._steps)
        self.seconds.append(self._clock() - started)


def _time_in_turn(sizes: Sequence[_Steps], steps: int) -> list[tuple[int, float]]:
    """Returns supervised tokens and seconds of each size's step; sizes take turns, so that other work slows all."""
    for _ in range(steps + WARM):
        for size in sizes:
            size.take()
    return [(size.tokens, min(size.seconds[WARM:])) for size in sizes]


def _random_row(part: str, number: int, length: int) -> Encoded:
    generator = torch.Generator().manual_seed(2 * number + (part == "retain"))
    ids = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
    return Encoded(f"{part}/{number}", tuple(ids), length // 3, length)


def _steps_table(title: str, sizes: Sequence[tuple[int, int]], measured: Sequence[tuple[int, float]]) -> Table:
    fit = fit_line([tokens for tokens, _ in measured], [seconds for _, seconds in measured])
    table = Table(
        "rows",
        "tokens per row",
        "supervised tokens",
        "seconds",
        "line",
        "deviation",
        title=title,
        caption=f"seconds = {fit.fixed:.3f} + {fit.slope * 1e6:.1f}e-6 * tokens; R^2 {fit.r_squared:.4f}; "
        f"largest deviation {fit.deviation:.1%}",
    )
    for (rows, length), (tokens, seconds) in zip(sizes, measured, strict=True):
        line = fit.fixed + fit.slope * tokens
        table.add_row(
            str(rows), str(length), str(tokens), f"{seconds:.3f}", f"{line:.3f}", f"{(seconds - line) / seconds:+.1%}"
        )
    return table


def _pipeline_table(rows: Sequence[int]) -> Table:
    table = Table(
        "rows",
        "tokens",
        "read s",
        "encode s",
        "batches s",
        "us per row",
        "MB",
        "again s",
        "MB again",
        title="from files to batches",
    )
    for count in rows:
        with tempfile.TemporaryDirectory() as folder:
            files, cache = Path(folder) / "files", Path(folder) / "cache"
            files.mkdir()
            pipeline.write_files(files, count)
            first, again = (pipeline.measure_in_child(files, cache) for _ in range(2))
        table.add_row(
            f"{count:,}",
            f"{first.tokens:,}",
            f"{first.read:.1f}",
            f"{first.encode:.1f}",
            f"{first.batches:.1f}",
            f"{first.processor / count * 1e6:.0f}",
            f"{first.megabytes:.0f}",
            f"{again.read + again.encode + again.batches:.1f}",
            f"{again.megabytes:.0f}",
        )
    return table
