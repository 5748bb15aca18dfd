"""The checks of how a run trains: gradients taken apart, compiled blocks, the step that is kept, batches.

`rules.py` lists them among all checks of a config.
"""

from __future__ import annotations

from erulab.adversaries.ablation import AblationOptions, Sites
from erulab.adversaries.weights import WeightAdversary
from erulab.data.muse import MuseOptions
from erulab.data.rwku import RwkuOptions
from erulab.data.wmdp import WmdpOptions
from erulab.errors import ConfigError
from erulab.methods.base import GradientMethod, StandIn, gradient_method
from erulab.options import Combine, EngineName, Keep, RunConfig, Stage, TrainerOptions
from erulab.registry import adversaries, methods, rewards
from erulab.rewards.elastic import ElasticOptions


def check_separate_gradients(config: RunConfig) -> None:
    """Refuses what takes the gradients of forget and retain rows apart where it has no meaning or no engine."""
    combine, adversary = config.trainer.combine, config.adversary.name
    built = adversaries.build(config.adversary)
    moves_weights = isinstance(built, WeightAdversary) and built.moves
    named = f"adversary={adversary}" if moves_weights else f"trainer.combine={combine.value}"
    if combine is Combine.sum and not moves_weights:
        return
    method = gradient_method(config.method)
    if combine is not Combine.sum and (method is None or not method.retain_terms):
        instead = "" if method is None else "method.retain=nll, or "
        raise ConfigError(
            f"trainer.combine={combine.value} combines the gradients of forget and retain rows, and method="
            f"{config.method.name} has no retain term; type {instead}trainer.combine=sum"
        )
    if config.engine.name is EngineName.zero3:
        raise ConfigError(
            f"{named} needs the whole gradient on each process, which engine=zero3 never has; type engine=zero2, or "
            "engine=local with model.lora.rank=16"
        )


def check_rehearsal(config: RunConfig) -> None:
    """Refuses a number of retain rows for a method that runs none."""
    method = gradient_method(config.method)
    if config.trainer.retain_ratio != 1 and (method is None or not method.retain_terms):
        raise ConfigError(
            f"trainer.retain_ratio={config.trainer.retain_ratio:g} adds retain rows, and method={config.method.name} "
            "has no retain term to run them; leave it out, or take a method with method.retain=nll"
        )


def check_compile(config: RunConfig) -> None:
    """Refuses options that do not work with compiled blocks."""
    adversary = config.adversary
    if config.trainer.compile and isinstance(adversary, AblationOptions) and adversary.sites is Sites.all_writes:
        raise ConfigError(
            "trainer.compile=true compiles whole blocks, and adversary.sites=all_writes edits states inside them; "
            "try adversary.sites=block_inputs, or trainer.compile=false"
        )
    if config.trainer.compile and config.trainer.eval_every is not None:
        raise ConfigError(
            "trainer.eval_every scores rows in other batch shapes than training, so trainer.compile=true would compile "
            "again for each evaluation; try trainer.compile=false, or trainer.eval_every=null"
        )


def check_kept_step(config: RunConfig) -> None:
    """Requires for `trainer.keep=best` the evaluations that it chooses among, and what knowledge left is defined by."""
    unlearns = Stage.unlearn in config.stages and config.model.unlearned is None
    if config.trainer.keep is not Keep.best or not unlearns:
        return
    best, last, name = "trainer.keep=best", "trainer.keep=last", config.dataset.name
    if not isinstance(methods.build(config.method), GradientMethod | StandIn):
        raise ConfigError(
            f"{best} chooses among training steps, and method={config.method.name} has none that are evaluated; type "
            f"{last}"
        )
    if config.trainer.eval_every is None:
        raise ConfigError(f"{best} chooses among evaluations during unlearning; type trainer.eval_every=10, or {last}")
    if isinstance(config.dataset, MuseOptions | RwkuOptions | WmdpOptions):
        raise ConfigError(f"{best} chooses by knowledge left, which dataset={name} has not; type {last}")
    if config.model.oracle is None and Stage.oracle not in config.stages:
        raise ConfigError(
            f"{best} chooses by knowledge left, which needs an oracle; add oracle to stages (a finished one is taken "
            f"from the cache), name one with model.oracle=FOLDER, or type {last}"
        )


def check_batches(config: RunConfig, processes: int | None = None) -> None:
    """Requires global_batch = micro_batch x accumulation x processes, for unlearning and for learning.

    Args:
        config: its engine is definite.
        processes: over all hosts; None: those of the engine.
    Raises:
        ConfigError: the equation with numbers and the nearest values that satisfy it.
    """
    processes = config.engine.world if processes is None else processes
    for part, options in (("trainer", config.trainer), ("target", config.target)):
        if config.trainer.micro_tokens is not None and options.micro_batch is None:
            # The budget cuts the batch into micro-batches of any sizes, the same number for every process.
            if options.global_batch < processes:
                raise ConfigError(
                    f"{part}.global_batch={options.global_batch} leaves some of {processes} processes without a row; "
                    f"try {part}.global_batch={processes}"
                )
            continue
        micro = options.micro_batch or max(options.global_batch // processes, 1)
        share = micro * processes
        if options.global_batch % share:
            below = options.global_batch // share * share
            nearest = " or ".join(f"{part}.global_batch={n}" for n in (below, below + share) if n)
            fitting = [m for m in range(1, options.global_batch + 1) if options.global_batch % (m * processes) == 0]
            if fitting:
                nearest += f", or {part}.micro_batch={min(fitting, key=lambda m: abs(m - micro))}"
            raise ConfigError(
                f"{part}.global_batch must be micro_batch x accumulation x processes: {options.global_batch} is not "
                f"{micro} x n x {processes}; try {nearest}"
            )
    _check_retain_rows(config.trainer, processes)
    reward = config.reward
    given = config.trainer.micro_batch
    if reward.name == "none" or not rewards.build(reward).needs_whole_batch:
        return
    elastic = isinstance(reward, ElasticOptions)
    what, instead = ("reward.z=batch", ", or reward.z=ema") if elastic else (f"reward={reward.name}", "")
    needs = f"{what} compares all rows of a step, so the global batch must be one micro-step"
    if config.trainer.micro_tokens is not None:
        raise ConfigError(
            f"{needs}, and trainer.micro_tokens={config.trainer.micro_tokens} may cut it; try "
            f"trainer.micro_tokens=null{instead}"
        )
    whole = config.trainer.global_batch // processes
    if given is not None and given != whole:
        raise ConfigError(
            f"{needs}: trainer.micro_batch={given} x {processes} processes is not {config.trainer.global_batch}; "
            f"try trainer.micro_batch={whole}{instead}"
        )


def _check_retain_rows(trainer: TrainerOptions, processes: int) -> None:
    """Requires a retain row in each forward: under ZeRO all processes run alike."""
    if trainer.retain_ratio == 1:
        return
    rows = trainer.global_batch * trainer.retain_ratio
    forwards = trainer.global_batch // trainer.micro_batch if trainer.micro_batch else processes
    if rows != round(rows) or rows < forwards:
        raise ConfigError(
            f"trainer.retain_ratio={trainer.retain_ratio} x trainer.global_batch={trainer.global_batch} must be a "
            f"whole number of retain rows, at least one for each of {forwards} forwards; try trainer.retain_ratio=2"
        )
