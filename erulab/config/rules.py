"""The checks of a whole config: which options do not fit together. Each has a name and refuses with a ConfigError.

`CHECKS` is the list, in the order in which a config is checked; a new check is a function and a line there. Ranges of
single options are checked before, by their own classes (`__post_init__`); names and secrets by `text_rules`. What can
be known only once the engine is definite is in `JOB_CHECKS`; what needs a data set's rows is in `stages`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from erulab import registry
from erulab.attacks.relearn import RelearnOptions
from erulab.attacks.relearn_rows import check_texts_file
from erulab.attacks.sequence import every_options
from erulab.config.data_rules import check_data_set
from erulab.config.judge_rules import check_judge, check_judge_of_job
from erulab.config.memory_rules import check_optimizer, check_quantization
from erulab.config.training_rules import (
    check_batches,
    check_compile,
    check_kept_step,
    check_rehearsal,
    check_separate_gradients,
)
from erulab.errors import ConfigError
from erulab.methods.base import GradientMethod, StandIn, gradient_method
from erulab.methods.needs import Answer, ForgetTokens
from erulab.models.hf import HfOptions
from erulab.models.tiny import TinyOptions
from erulab.options import EngineName, Offload, RunConfig, SavedModel, Stage, TrackerName
from erulab.registry import methods, rewards

Check = Callable[[RunConfig], None]


def check_config(config: RunConfig) -> None:
    """Runs CHECKS on a composed config.

    Raises:
        ConfigError: the first check that fails says why, and what to type instead.
    """
    for check in CHECKS:
        check(config)


def check_job(config: RunConfig) -> None:
    """Runs JOB_CHECKS on a config with a definite engine.

    Raises:
        ErulabError: the first check that fails; a ConfigError, or a DataError for a file that cannot be used.
    """
    for check in JOB_CHECKS:
        check(config)


def check_reward(config: RunConfig) -> None:
    """Requires a reward for methods with a margin, and refuses one for all others."""
    method = config.method.name
    takers = [name for name in methods.names() if _takes_reward(methods[name].options())]
    choices = [name for name in rewards.names() if name != "none"]
    takes = _takes_reward(config.method)
    if takes and config.reward.name == "none":
        raise ConfigError(f"method={method} needs a reward; try reward={choices[0]}, or one of: {', '.join(choices)}")
    if not takes and config.reward.name != "none":
        raise ConfigError(
            f"method={method} has no margin, so reward={config.reward.name} would do nothing; drop it, or use one of: "
            + ", ".join(f"method={name}" for name in takers)
        )


def _takes_reward(options: Any) -> bool:
    method = gradient_method(options)
    return method is not None and method.needs.reward


def check_adversary(config: RunConfig) -> None:
    """Refuses an adversary for methods that never train on forget rows."""
    if config.adversary.name != "none" and gradient_method(config.method) is None:
        raise ConfigError(
            f"method={config.method.name} never trains on forget rows, so adversary={config.adversary.name} has "
            "nothing to perturb; try adversary=none, or a method that unlearns such as method=eru"
        )


def check_forget_tokens(config: RunConfig) -> None:
    """Refuses a choice of forget tokens that the method does not look at, or that no model of the run can tell."""
    method, model = gradient_method(config.method), config.model
    if method is None or method.options.forget_tokens is ForgetTokens.all:
        return
    named, chosen = f"method={config.method.name}", f"method.forget_tokens={method.options.forget_tokens.value}"
    instead = "type method.forget_tokens=all, or a method that unlearns answers such as method=npo"
    if method.needs.answer is Answer.refusal:
        raise ConfigError(
            f"{named} trains on refusals and no token of the forgotten answer, so {chosen} would do nothing; {instead}"
        )
    if method.needs.states:
        raise ConfigError(f"{named} reads the hidden states of whole rows, not only those of {chosen}; {instead}")
    unlearns = Stage.unlearn in config.stages and model.unlearned is None
    has_oracle = model.oracle is not None or Stage.oracle in config.stages
    if method.options.forget_tokens is not ForgetTokens.surprising or not unlearns or has_oracle:
        return
    instead = "add oracle to stages, name one with model.oracle=FOLDER, or type method.forget_tokens=span"
    if isinstance(model, TinyOptions):
        raise ConfigError(
            f"{chosen} needs a model that can read: the base weights of model=tiny are drawn at random, and every "
            f"token surprises them; {instead}"
        )
    if model.target is not None and model.target == model.path:
        raise ConfigError(
            f"{chosen} needs a model that never saw the facts, and the base model {model.path} is the target itself; "
            f"{instead}"
        )


def check_retain_states(config: RunConfig) -> None:
    """Refuses a retain term on hidden states for a method that reads none."""
    method = gradient_method(config.method)
    if method is None or type(method).layers is not GradientMethod.layers:
        return
    if any(term.states for term in method.retain_terms):
        raise ConfigError(
            f"method.retain=states compares hidden states at the method's layers, and method={config.method.name} "
            "reads none; type method.retain=kl, or a method on hidden states such as method=rmu"
        )


def check_adapters(config: RunConfig) -> None:
    """Refuses adapters for methods that make their model of whole weights."""
    method = methods.build(config.method)
    if config.model.lora.rank and not isinstance(method, GradientMethod | StandIn):
        raise ConfigError(
            f"method={config.method.name} computes new values of all weights, so model.lora.rank="
            f"{config.model.lora.rank} would train adapters that nothing reads; type model.lora.rank=0"
        )


def check_artifacts(config: RunConfig) -> None:
    """Refuses to save an adapter where none is trained, and to send a model where nothing is sent."""
    adapters = config.model.lora.rank > 0 and gradient_method(config.method) is not None
    if config.artifacts.model is SavedModel.adapter and not adapters:
        raise ConfigError(
            f"artifacts.model=adapter, but method={config.method.name} with model.lora.rank={config.model.lora.rank} "
            "trains no adapter; try model.lora.rank=16 and a method that unlearns, or artifacts.model=full"
        )
    if config.artifacts.model is SavedModel.wandb and config.tracker.name is not TrackerName.wandb:
        raise ConfigError(
            f"artifacts.model=wandb sends the model to wandb, but tracker={config.tracker.name.value}; type "
            "tracker=wandb, or artifacts.model=full to keep the model in the run folder alone"
        )


def check_stages(config: RunConfig) -> None:
    """Requires at least one stage, and for each stage the models that it reads."""
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


def check_oracles(config: RunConfig) -> None:
    """Refuses to count the oracles to learn where they are given."""
    given, seeds = config.model.oracles, config.target.oracle_seeds
    if given and seeds > 1:
        raise ConfigError(
            f"target.oracle_seeds={seeds} learns that many oracles, and model.oracle={','.join(given)} gives them; "
            "leave out one of the two (model.oracle=[FOLDER,FOLDER] gives several)"
        )


def check_engine(config: RunConfig) -> None:
    """Refuses what the engine cannot do. Job planning asks again once `engine=auto` has become a definite engine."""
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


def check_named_files(config: RunConfig) -> None:
    """Looks at the files that model, data set, benchmarks and attacks name, without loading any of them.

    Raises:
        ErulabError: one line, of the code that fits.
    """
    parts = [(registry.models, config.model), (registry.datasets, config.dataset)]
    parts += [(registry.benchmarks, options) for options in config.benchmark.values()]
    for plugins, options in parts:
        plugins.build(options).validate()
    for options in every_options(config.attack):
        if isinstance(options, RelearnOptions):
            check_texts_file(options.texts)


# The order decides which message is shown where several checks would fail.
CHECKS: tuple[Check, ...] = (
    check_reward,
    check_adversary,
    check_forget_tokens,
    check_retain_states,
    check_separate_gradients,
    check_rehearsal,
    check_adapters,
    check_artifacts,
    check_compile,
    check_stages,
    check_oracles,
    check_kept_step,
    check_data_set,
    check_judge,
    check_engine,
    check_optimizer,
    check_quantization,
)
JOB_CHECKS: tuple[Check, ...] = (
    check_engine,
    check_separate_gradients,
    check_optimizer,
    check_quantization,
    check_batches,
    check_named_files,
    check_judge_of_job,
)
