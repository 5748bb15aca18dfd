"""Compares an optimizer step of each method with the plain way, in turn in one process: time, memory and losses."""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from erulab.bench import measure
from erulab.bench.plain import PlainUnlearning
from erulab.config.compose import compose_config
from erulab.data.rows import Benchmark
from erulab.methods.base import forget_tokens_of
from erulab.models.loaded import LoadedModel
from erulab.models.options import Attention
from erulab.options import RunConfig
from erulab.ranks import Ranks
from erulab.registry import datasets, methods, models
from erulab.tokens.encoder import Encoder
from erulab.tokens.truncation import truncate_to_context
from erulab.training.assembly import assemble_unlearning, encode_unlearning_rows
from erulab.training.loader import ModelLoader, ModelRef
from erulab.training.loop import train
from erulab.training.unlearning_batches import GAIN_EVERY, UnlearningRows

CASES = {
    "ga": ("method=ga",),
    "npo": ("method=npo",),
    "dpo": ("method=dpo",),
    "simnpo": ("method=simnpo",),
    "eru+rfa": ("method=eru", "adversary=rfa", "adversary.warmup=0"),
    "eru+latent_pgd": ("method=eru", "adversary=latent_pgd"),
}
# The learning rate is small and constant: it does not change the cost, and rounding errors grow little.
SETTINGS = (
    "trainer.lr=1e-5",
    "trainer.schedule=constant",
    "trainer.warmup=0",
    "trainer.steps=1000",
    "attack=none",
    "tracker=none",
)
DEFAULTS = ("model=smollm2_135m", "dataset=tofu", "trainer.micro_tokens=1024")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"as for erulab.run; {' '.join(DEFAULTS)}")
    parser.add_argument("--rows", nargs="+", type=int, default=[4, 16], metavar="N", help="forget rows per step: 4 16")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="timed steps of each way: 5")
    parser.add_argument(
        "--no-plain", action="store_true", help="leave the plain way out: compare erulab with its own npo"
    )


def run(options: argparse.Namespace) -> None:
    """Measures every case at every size; prints one line for each."""
    base = compose_config([*DEFAULTS, *SETTINGS, *options.overrides])
    source = models.build(base.model)
    source.validate()
    folder = Path(base.cache)
    rows = datasets.build(base.dataset).load(base.seed, folder)
    target = source.load(rows, base.seed)
    target.policy.to(measure.DEVICE)
    encoder = Encoder(target.chat, rows.max_length, folder)
    benchmark = truncate_to_context(rows, encoder, folder)
    print(f"{base.model.name} on {base.dataset.name}, {torch.get_num_threads()} threads")
    print(f"{'step':22}" + "".join(f"{name:>14}" for name in COLUMNS), flush=True)
    for size in options.rows:
        for case in options.cases:
            typed = [*DEFAULTS, *SETTINGS, *options.overrides, f"trainer.global_batch={size}"]
            config, npo = (compose_config([*typed, *CASES[name]]) for name in (case, "npo"))
            cells = _table_cells(config, npo, target, encoder, benchmark, options.steps, not options.no_plain)
            print(f"{f'{case} {size}+{size}':22}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
    print(EXPLANATION)


COLUMNS = (
    "erulab s",
    "plain s",
    "time ratio",
    "erulab GB",
    "plain GB",
    "memory ratio",
    "limit share",
    "plain share",
    "loss differs",
    "times npo",
)
EXPLANATION = """\
seconds: of the median step; the work of an adversary every few steps is added by its share; steps are taken in turn.
GB: the allocator's peak in a step, less the gradients: the memory beyond weights, gradients and optimizer state.
limit share: FLOP/s of the matrix products over those of one large float32 product here.
times npo: seconds over those of erulab's own npo step, taken in turn."""


@dataclass
class TimedSteps:
    """A way of taking steps, with the seconds and the loss of each."""

    step: Callable[[], float]
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def take(self) -> None:
        """Takes and times one step."""
        self.seconds.append(measure.seconds(lambda: self.losses.append(self.step())))


def _table_cells(
    config: RunConfig,
    npo_config: RunConfig,
    target: LoadedModel,
    encoder: Encoder,
    benchmark: Benchmark,
    steps: int,
    plain: bool,
) -> list[str]:
    """Measures one case at one size and returns its cells of the table."""
    rows = encode_unlearning_rows(
        encoder, benchmark, methods.build(config.method), config.seed, forget_tokens_of(config.method)
    )
    with tempfile.TemporaryDirectory() as folder:
        ours = TimedSteps(_erulab_step(config, target, rows, Path(folder)))
        npo = TimedSteps(_erulab_step(npo_config, target, rows, Path(folder)))
    other = TimedSteps(_plain_step(config, target, rows)) if plain else None
    limit = 0.0
    # The first step is not timed; with an adversary it goes on to the step that measures the gain.
    for number in range(max(steps, GAIN_EVERY if config.adversary.name != "none" else 0) + 1):
        ours.take()
        if number <= steps:
            limit = max(limit, measure.matrix_limit())
            npo.take()
            if other is not None:
                other.take()
    seconds, share, memory = _step_cost(ours, config, target, limit)
    times_npo = seconds / statistics.median(npo.seconds[1:])
    if other is None:
        own = (f"{seconds:.3g}", "-", "-", f"{memory / 1e9:.3g}", "-", "-", f"{share:.2f}")
        return [*own, "-", "-", f"{times_npo:.2f}"]
    plain_seconds, plain_share, plain_memory = _step_cost(other, config, target, limit)
    difference = max(abs(a - b) for a, b in zip(ours.losses, other.losses, strict=False))
    return [
        f"{seconds:.3g}",
        f"{plain_seconds:.3g}",
        f"{plain_seconds / seconds:.2f}",
        f"{memory / 1e9:.3g}",
        f"{plain_memory / 1e9:.3g}",
        f"{memory / plain_memory:.2f}",
        f"{share:.2f}",
        f"{plain_share:.2f}",
        f"{difference:.0e}",
        f"{times_npo:.2f}",
    ]


def _step_cost(way: TimedSteps, config: RunConfig, target: LoadedModel, limit: float) -> tuple[float, float, int]:
    """Returns the seconds of a step, its share of the machine's limit, and its bytes beyond the gradients."""
    # FLOPs first: the step after the timed ones has none of an adversary's periodic work.
    share = measure.flops(way.step) / statistics.median(way.seconds[1:]) / limit
    gradients = sum(p.numel() * p.element_size() for p in target.model.parameters())
    return _typical_seconds(way.seconds, config), share, measure.peak_bytes(way.step) - gradients


def _typical_seconds(seconds: Sequence[float], config: RunConfig) -> float:
    """Returns the seconds of the median step, plus the share of an adversary's work every few steps."""
    name = config.adversary.name
    every = config.adversary.every if name == "rfa" else 0
    prepared = [s for step, s in enumerate(seconds) if step and every and step % every == 0]
    measured = [s for step, s in enumerate(seconds) if step and name != "none" and step % GAIN_EVERY == 0]
    ordinary = statistics.median(
        s
        for step, s in enumerate(seconds)
        if step and not (every and step % every == 0) and not (name != "none" and step % GAIN_EVERY == 0)
    )
    more = [(statistics.median(part) - ordinary) / n for part, n in ((prepared, every), (measured, GAIN_EVERY)) if part]
    return ordinary + sum(more)


def _erulab_step(config: RunConfig, target: LoadedModel, rows: UnlearningRows, folder: Path) -> Callable[[], float]:
    loader = ModelLoader(config, models.build(config.model), target.ledger, target.policy.device)
    unlearning = assemble_unlearning(config, loader, ModelRef("bench", ""), target.copy(), rows, Ranks(), folder)
    steps: Iterator[tuple[int, dict[str, float]]] = train(
        unlearning.engine, unlearning.objective, unlearning.loop, Ranks()
    )
    return lambda: next(steps)[1]["loss"]


def _plain_step(config: RunConfig, target: LoadedModel, rows: UnlearningRows) -> Callable[[], float]:
    model = copy.deepcopy(target.model)
    model.set_attn_implementation(Attention.sdpa.value)  # transformers' own
    reference = copy.deepcopy(model).requires_grad_(False)
    return PlainUnlearning(model.train(), reference.eval(), rows, config, target.pad_id)
