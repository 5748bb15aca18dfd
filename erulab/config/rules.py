"""What a config must satisfy beyond each option's own range: names, secrets, and parts that fit together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from erulab.adversaries.ablation import AblationOptions, Sites
from erulab.config import data_rules
from erulab.errors import ConfigError
from erulab.methods.base import Trains
from erulab.models.hf import HfOptions
from erulab.options import EngineName, Offload, RunConfig, SavedModel, Stage
from erulab.redaction import REDACTED, redacted_text
from erulab.registry import GROUPS, LIST_GROUPS, methods, rewards
from erulab.rewards.elastic import ElasticOptions

NAMES = ("name", "split", "project", "group")  # keys that become parts of file names
LONGEST = 255  # bytes of a file name, on the file systems we know
OTHER_GROUPS = ("trainer", "engine", "tracker", "experiment", "sweep")
COMMIT_OR_HASH = re.compile(r"[0-9a-f]{40}")


def check_overrides(overrides: Iterable[str]) -> None:
    """Refuses choices that Hydra would look for outside conf/, or answers with a traceback.

    Raises:
        ConfigError
    """
    for override in overrides:
        group, equals, value = override.partition("=")
        if equals and not group:
            raise ConfigError(f"{override!r} names no key; type KEY=VALUE")
        if not equals or group not in (*GROUPS, *OTHER_GROUPS):
            continue
        if group in GROUPS and value.strip() in ("null", ""):
            names = ", ".join(["none"] * (group in LIST_GROUPS) + GROUPS[group].names())
            raise ConfigError(f"{override}: {group} is required; type {group}=NAME, one of: {names}")
        for name in re.split(r"[\[\],\s'\"]+", value):
            # Numbers and booleans are no names to Hydra either, and it says so with a traceback.
            plain = r"[A-Za-z_][\w-]{0,99}"
            allowed = rf"({plain}/)?{plain}" if group == "experiment" else plain  # recipes lie in a folder a benchmark
            if name and (not re.fullmatch(allowed, name) or name.lower() in ("true", "false")):
                raise ConfigError(f"{group}={name[:60]!r} is no option's name: letters, digits, _ and - only")
        if value.startswith("[") and group not in LIST_GROUPS:
            raise ConfigError(f"{override}: {group} takes one choice; for a run of each: -m {group}={value[1:-1]}")


def check_texts(values: dict[str, Any]) -> None:
    """Refuses code (`_target_`), secrets, and texts that are no file names where they become one.

    Raises:
        ConfigError
    """
    for key, value in _leaves(values):
        name = key.rsplit(".", 1)[-1]
        if "_target_" in key.split("."):
            raise ConfigError(f"{key}: _target_ would run code that a config names; refused outside hydra's node")
        if not isinstance(value, str):
            continue
        if "\0" in value:
            raise ConfigError(f"{key} holds a NUL character, which no name or path can")
        if any(len(part.encode(errors="surrogatepass")) > LONGEST for part in value.split("/")):
            raise ConfigError(f"{key} holds a name of more than {LONGEST} bytes: {value[:40]}...; give a shorter one")
        if name in NAMES and ("/" in value or value in (".", "..")):
            raise ConfigError(f"{key} must be a plain name without /, got {value!r}")
        # 40 hex digits inside a path are a commit (the hub's cache); alone they are a wandb key.
        if REDACTED in redacted_text(value, commits=not COMMIT_OR_HASH.fullmatch(value)):
            raise ConfigError(
                f"{key} looks like a secret (its value is not shown); configs are written to files, so set it in the "
                "environment instead: WANDB_API_KEY, HF_TOKEN"
            )


def check(config: RunConfig) -> None:
    """Combinations without a meaning.

    Raises:
        ConfigError: why, and what to type instead.
    """
    _check_reward(config)
    _check_adversary(config)
    _check_artifacts(config)
    _check_compile(config)
    _check_stages(config)
    data_rules.check(config)
    check_engine(config)


def check_batches(config: RunConfig, processes: int) -> None:
    """global_batch = micro_batch x accumulation x processes, for unlearning and for learning.

    Raises:
        ConfigError: the equation with numbers and the nearest values that satisfy it.
    """
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


def _check_reward(config: RunConfig) -> None:
    method = config.method.name
    takers = [name for name in methods.names() if methods[name].factory.takes_reward]
    choices = [name for name in rewards.names() if name != "none"]
    if method in takers and config.reward.name == "none":
        raise ConfigError(f"method={method} needs a reward; try reward={choices[0]}, or one of: {', '.join(choices)}")
    if method not in takers and config.reward.name != "none":
        raise ConfigError(
            f"method={method} has no margin, so reward={config.reward.name} would do nothing; drop it, or use one of: "
            + ", ".join(f"method={name}" for name in takers)
        )


def _check_artifacts(config: RunConfig) -> None:
    trains = methods[config.method.name].factory.trains
    adapters = config.model.lora.rank > 0 and trains not in (Trains.retrain, Trains.nothing)
    if config.artifacts.model is SavedModel.adapter and not adapters:
        raise ConfigError(
            f"artifacts.model=adapter, but method={config.method.name} with model.lora.rank={config.model.lora.rank} "
            "trains no adapter; try model.lora.rank=16 and a method that unlearns, or artifacts.model=full"
        )


def _check_adversary(config: RunConfig) -> None:
    trains = methods[config.method.name].factory.trains
    if config.adversary.name != "none" and trains in (Trains.retrain, Trains.nothing):
        raise ConfigError(
            f"method={config.method.name} never trains on forget rows, so adversary={config.adversary.name} has "
            "nothing to perturb; try adversary=none, or a method that unlearns such as method=eru"
        )


def _check_compile(config: RunConfig) -> None:
    adversary = config.adversary
    if config.trainer.compile and isinstance(adversary, AblationOptions) and adversary.sites is Sites.all_writes:
        raise ConfigError(
            "trainer.compile=true compiles whole blocks, and adversary.sites=all_writes edits what stands inside them; "
            "try adversary.sites=block_inputs, or trainer.compile=false"
        )
    if config.trainer.compile and config.trainer.eval_every is not None:
        raise ConfigError(
            "trainer.eval_every lays rows out otherwise than training does, so trainer.compile=true would compile each "
            "look anew; try trainer.compile=false, or trainer.eval_every=null"
        )


def _check_stages(config: RunConfig) -> None:
    stages = config.stages
    if not stages:
        raise ConfigError(f"stages=[] leaves nothing to do; name some of {','.join(stage.name for stage in Stage)}")
    if config.models_to_learn and isinstance(config.model, HfOptions) and config.model.path is None:
        learned = [stage.name for stage in config.models_to_learn]
        named = " ".join(f"model.{name}=FOLDER" for name in learned)
        alone = "stages=[evaluate] to score model.unlearned as it is" if config.model.unlearned is not None else named
        raise ConfigError(
            f"model={config.model.name} needs model.path, the weights to learn {' and '.join(learned)} from; type "
            f"model.path=owner/name or ./folder, or {alone}"
        )
    unlearned = Stage.unlearn in stages or config.model.unlearned is not None
    if Stage.attack in stages and config.attack and not unlearned:
        raise ConfigError(
            f"stages=[{','.join(stage.name for stage in stages)}]: attack needs the unlearned model; add unlearn (a "
            "finished one is taken from the cache), name a checkpoint with model.unlearned=, or type attack=none"
        )


def check_engine(config: RunConfig) -> None:
    """What an engine cannot do; asked again once `auto` has become definite.

    Raises:
        ConfigError
    """
    engine = config.engine
    if engine.name is EngineName.local and engine.nodes > 1:
        raise ConfigError(
            f"engine=local is one process, got engine.nodes={engine.nodes}; try engine=zero2, or engine.nodes=1"
        )
    if engine.nodes > 1 and engine.rendezvous is None:
        raise ConfigError(
            f"engine.nodes={engine.nodes} needs the address where the hosts meet; type engine.rendezvous=HOST:PORT, "
            "the same on each host: the name of one of them and a free port of it (in Slurm: sbatch launch/slurm.sh)"
        )
    if engine.name is EngineName.local and (engine.processes or 1) > 1:
        raise ConfigError(
            f"engine=local is one process, got engine.processes={engine.processes}; try engine=zero2, or "
            "engine.processes=1"
        )
    offload = f"engine.offload={engine.offload.name}"
    if engine.offload is not Offload.none and engine.name in (EngineName.local, EngineName.zero0):
        raise ConfigError(
            f"{offload} needs a sharded optimizer, which engine={engine.name.name} has not; try engine=zero2"
        )
    if engine.offload is Offload.nvme and engine.name is not EngineName.zero3:
        raise ConfigError(f"{offload} is for engine=zero3, got engine={engine.name.name}; try engine.offload=cpu")
    if (engine.offload is Offload.nvme) != (engine.nvme_path is not None):
        raise ConfigError(
            f"{offload} and engine.nvme_path={engine.nvme_path or 'null'} do not fit together; type "
            "engine.offload=nvme engine.nvme_path=FOLDER"
        )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
    else:
        yield path, value
