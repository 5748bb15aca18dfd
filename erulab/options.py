"""The typed options of a run that are not plugins, and the range checks that every options class uses.

The options of a plugin stand beside its code (`methods/npo.py`, `attacks/relearn.py`). The comment beside or above a
field is its documentation: `python -m erulab.list trainer` prints it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from omegaconf import MISSING

from erulab.roles import oracle_roles

MOST_EPOCHS = 1_000_000
# Options of `evaluation` that change no score of a row; the judge reads rows that are scored already.
NOT_IN_SCORES = ("batch_tokens", "judge", "samples", "uds")
# Options of `evaluation.judge` that change no verdict.
NOT_IN_VERDICTS = ("key_variable", "retries", "timeout")
# Tokens per forward without gradient, where evaluation.batch_tokens is null and memory does not choose them.
FIXED_TOKENS = 8192
# Options of `trainer` and `target` that change how a model is trained, but not the model that comes out.
NOT_IN_PRODUCT = ("micro_batch", "micro_tokens", "log_every", "save_every", "checkpointing", "compile")


def require(holds: bool, field_name: str, allowed: str, value: Any) -> None:
    """Raises ValueError("<field> must be <allowed>, got <value>") unless `holds` is true.

    Args:
        holds: whether the value is allowed.
        field_name: name of the option.
        allowed: what is allowed, in words.
        value: the value that was given.
    """
    if not holds:
        raise ValueError(f"{field_name} must be {allowed}, got {value}")


def require_positive(field_name: str, value: float | None) -> None:
    """Raises ValueError unless the value is null, or finite and > 0."""
    require(value is None or (math.isfinite(value) and value > 0), field_name, "> 0", value)


def require_not_negative(field_name: str, value: float | None) -> None:
    """Raises ValueError unless the value is null, or finite and >= 0."""
    require(value is None or (math.isfinite(value) and value >= 0), field_name, ">= 0", value)


def require_epochs(field_name: str, value: float) -> None:
    """Raises ValueError unless the value is > 0 and small enough to be counted in steps."""
    require(0 < value <= MOST_EPOCHS, field_name, f"> 0 and at most {MOST_EPOCHS}", value)


def require_fraction(field_name: str, value: float) -> None:
    """Raises ValueError unless the value is in [0, 1]."""
    require(0 <= value <= 1, field_name, "between 0 and 1", value)


class Stage(Enum):
    """The stages of a run, in the order in which they run."""

    target = "target"
    oracle = "oracle"
    unlearn = "unlearn"
    evaluate = "evaluate"
    attack = "attack"
    report = "report"


class Schedule(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Combine(Enum):
    sum = "sum"  # both gradients as they are
    pcgrad = "pcgrad"  # the forget gradient without its part against the retain gradient
    blur = "blur"  # the retain gradient, with its part along the forget gradient replaced by descent on it
    gru = "gru"  # pcgrad against a moving average of the retain gradient


class Precision(Enum):
    auto = "auto"  # bf16 on GPUs that have it, otherwise fp32
    fp32 = "fp32"
    bf16 = "bf16"


class OptimizerName(Enum):
    adamw = "adamw"
    adamw_8bit = "adamw_8bit"  # AdamW with moments in 8 bits; needs bitsandbytes
    paged_adamw_8bit = "paged_adamw_8bit"  # the same, in host memory where the GPU is full
    adafactor = "adafactor"  # row and column sums in place of a matrix's moments
    sgd = "sgd"  # without momentum: no state

    @property
    def in_8_bits(self) -> bool:
        """Whether bitsandbytes keeps the state."""
        return self in (OptimizerName.adamw_8bit, OptimizerName.paged_adamw_8bit)


class EngineName(Enum):
    auto = "auto"  # local on the CPU or one GPU, zero2 from two GPUs on
    local = "local"  # plain PyTorch in one process
    zero0 = "zero0"
    zero1 = "zero1"
    zero2 = "zero2"
    zero3 = "zero3"


class Offload(Enum):
    none = "none"
    cpu = "cpu"
    nvme = "nvme"


class TrackerName(Enum):
    wandb = "wandb"
    none = "none"


class Compat(Enum):
    none = "none"
    open_unlearning = "open_unlearning"  # its definitions, reported beside ours


class Generator(Enum):
    torch = "torch"  # erulab's own generation
    vllm = "vllm"  # vLLM, where it is installed: one GPU, engine=local; attacks generate with torch all the same


class SavedModel(Enum):
    full = "full"
    adapter = "adapter"  # the adapter of model.lora alone, to be loaded on top of the target
    none = "none"


class Keep(Enum):
    last = "last"  # the model after the last step
    best = "best"  # the evaluated step that is best on half of the facts to forget; the other half is reported


@dataclass
class TrainerOptions:
    """Unlearning, and the precision and memory options of every training. Accumulation is derived."""

    lr: float = 1e-5  # learning rate at its highest, after the warmup
    epochs: float = 5  # passes over the forget rows
    steps: Optional[int] = None  # optimiser steps; wins over epochs
    # forget rows per step (a pair counts as one); retain_ratio times as many retain rows are added
    global_batch: int = 32
    retain_ratio: float = 1.0  # retain rows per forget row: more rehearsal at the same number of steps
    combine: Combine = Combine.sum  # how the gradients of forget and retain loss become one
    combine_gamma: float = 1.0  # combine=blur: factor of the forget gradient
    combine_decay: float = 0.9  # combine=gru: share of the earlier average of retain gradients that stays in a step
    micro_batch: Optional[int] = None  # forget rows per forward; null: global_batch / processes
    # padded tokens per forward, in place of micro_batch: rows are grouped to fit; learning and attacks obey it too
    micro_tokens: Optional[int] = None
    optimizer: OptimizerName = OptimizerName.adamw  # of unlearning; target, oracle and attacks learn with adamw
    weight_decay: float = 0.01  # decoupled weight decay of matrices
    warmup: float = 0.1  # share of the steps in which the learning rate rises from 0
    schedule: Schedule = Schedule.linear  # how the learning rate changes after the warmup
    clip: float = 1.0  # largest gradient norm; 0: no clipping
    log_every: int = 1  # steps between lines of metrics.jsonl
    save_every: Optional[int] = None  # steps between resumable checkpoints; null: only when the run is stopped
    eval_every: Optional[int] = None  # steps between evaluations during unlearning (a trajectory); null: none
    keep: Keep = Keep.last  # the step whose model is the product
    # with keep=best: least share of the target's utility; among the steps that keep it, |knowledge left| decides
    keep_utility: float = 0.9
    precision: Precision = Precision.auto  # number format of forward and backward passes
    checkpointing: bool = False  # gradient checkpointing: less memory, about a third more time
    compile: bool = False  # torch.compile, block by block

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_epochs("epochs", self.epochs)
        require_positive("steps", self.steps)
        require_positive("global_batch", self.global_batch)
        require_positive("retain_ratio", self.retain_ratio)
        require_not_negative("combine_gamma", self.combine_gamma)
        require(0 <= self.combine_decay < 1, "combine_decay", "in [0, 1)", self.combine_decay)
        require_positive("micro_batch", self.micro_batch)
        require_positive("micro_tokens", self.micro_tokens)
        alone = self.micro_batch is None or self.micro_tokens is None
        require(alone, "micro_tokens", "null where micro_batch is set (both size a forward)", self.micro_tokens)
        require_not_negative("weight_decay", self.weight_decay)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        require_not_negative("clip", self.clip)
        require_positive("log_every", self.log_every)
        require_positive("save_every", self.save_every)
        require_positive("eval_every", self.eval_every)
        require_fraction("keep_utility", self.keep_utility)


@dataclass
class TargetOptions:
    """Learning the target and the oracle: never changed by a sweep over `trainer.*` or `seed`."""

    lr: float = 1e-5  # learning rate at its highest, after the warmup
    epochs: float = 5  # passes over the rows that are learned
    global_batch: int = 32  # rows per step
    micro_batch: Optional[int] = None  # rows per forward; null: global_batch / processes
    weight_decay: float = 0.01  # AdamW's weight decay
    warmup: float = 0.1  # share of the steps in which the learning rate rises from 0
    schedule: Schedule = Schedule.linear  # how the learning rate changes after the warmup
    clip: float = 1.0  # largest gradient norm; 0: no clipping
    seed: int = 0  # draws the order of rows and, for a model from scratch, its initial weights
    oracle_seeds: int = 1  # number of oracles, learned with seed, seed + 1, ...; their spread is in the interval of K

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_epochs("epochs", self.epochs)
        require_positive("global_batch", self.global_batch)
        require_positive("micro_batch", self.micro_batch)
        require_not_negative("weight_decay", self.weight_decay)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        require_not_negative("clip", self.clip)
        require_positive("oracle_seeds", self.oracle_seeds)


def product_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of `trainer` or `target` that a model depends on, for keys.

    Args:
        values: all options by name, as their dataclass holds them or as plain values.
    """
    return {name: value for name, value in values.items() if name not in NOT_IN_PRODUCT}


def score_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of `evaluation` that scores depend on, for keys.

    Args:
        values: all options by name, as their dataclass holds them or as plain values.
    """
    kept = {name: value for name, value in values.items() if name not in NOT_IN_SCORES}
    if kept["generator"] in (Generator.torch, Generator.torch.value):
        del kept["generator"]  # only another program's responses are other ones
    return kept


@dataclass
class EngineOptions:
    """Where training runs. `auto`: local on CPU or one GPU, zero2 from two GPUs on."""

    name: EngineName = EngineName.auto
    processes: Optional[int] = None  # on each host; null: one per GPU, or 1 without GPUs
    nodes: int = 1  # number of hosts; the same command is typed on each
    rendezvous: Optional[str] = None  # HOST:PORT where the hosts meet: the name of one of them and a free port of it
    # cpu: optimizer state (with zero3 the weights too) in host memory; nvme (with zero3): the state on a disk
    offload: Offload = Offload.none
    nvme_path: Optional[str] = None  # a folder on that disk

    def __post_init__(self) -> None:
        require_positive("processes", self.processes)
        require_positive("nodes", self.nodes)
        address = re.fullmatch(r"[\w.-]+:(\d{1,5})", self.rendezvous or "any:1")
        fits = address is not None and 0 < int(address[1]) < 2**16
        require(fits, "rendezvous", "HOST:PORT with a port between 1 and 65535", self.rendezvous)

    @property
    def world(self) -> int:
        """Number of processes over all hosts, once `processes` has been chosen (launching.engine_choice)."""
        return self.nodes * (self.processes or 1)


@dataclass
class TrackerOptions:
    """wandb, offline where no key is set, or none. metrics.jsonl is always written."""

    name: TrackerName = TrackerName.wandb
    project: str = "erulab"  # the wandb project
    group: Optional[str] = None  # the wandb group; null: the jobs of a sweep share one, a single run has none
    samples: bool = False  # send generated text to wandb too; it can contain what must be forgotten


@dataclass
class JudgeOptions:
    """A model that says whether a response holds the fact: a local one, or one behind an address. Null: no judge."""

    model: Optional[str] = None  # folder or hub id of a local judge
    # address of an OpenAI-compatible server, such as https://HOST/v1; prompts, with what must be forgotten, go there
    # and nowhere else
    url: Optional[str] = None
    url_model: Optional[str] = None  # the server's name of the model
    key_variable: Optional[str] = None  # name of the environment variable that holds the server's key; null: no key
    max_new_tokens: int = 16  # longest answer of the server
    retries: int = 5  # further tries of a request that the server cannot serve now
    timeout: float = 60.0  # seconds without an answer after which a request has failed

    def __post_init__(self) -> None:
        # The names have "judge." in front, because messages put only "evaluation." before them.
        require_positive("judge.max_new_tokens", self.max_new_tokens)
        require_not_negative("judge.retries", self.retries)
        require_positive("judge.timeout", self.timeout)

    @property
    def is_named(self) -> bool:
        """Whether the run has a judge."""
        return self.model is not None or self.url is not None


@dataclass
class EvaluationOptions:
    # tokens per forward; null: chosen from free memory and speed, 8192 where models are trained or attacked. Figures
    # depend on it by rounding only
    batch_tokens: Optional[int] = None
    generate: bool = True  # generate greedy responses, for ROUGE-L and exact match
    max_new_tokens: int = 200  # longest generated response
    generator: Generator = Generator.torch  # what generates the responses
    rows: Optional[int] = None  # at most this many rows of every suite that is not a forget suite; null: all
    # suites that are measured and attacked: names, exact or ending in *, with or without their benchmark's name in
    # front, such as [forget*,tofu/retain]; null: all
    suites: Optional[list[str]] = None
    samples: int = 5  # generated responses per suite that the report shows
    compat: Compat = Compat.none  # also compute TOFU's figures as another framework defines them
    # the Unlearning Depth Score: patches hidden states of oracle and unlearned model into the target; takes about as
    # many forwards of the forget rows as the model has blocks
    uds: bool = False
    judge: JudgeOptions = field(default_factory=JudgeOptions)

    def __post_init__(self) -> None:
        require_positive("batch_tokens", self.batch_tokens)
        require_positive("max_new_tokens", self.max_new_tokens)
        require_positive("rows", self.rows)
        if self.suites is not None:
            require(bool(self.suites) and all(self.suites), "suites", "a list such as [forget*,retain]", self.suites)
        require_not_negative("samples", self.samples)

    @property
    def fixed_tokens(self) -> int:
        """Tokens per forward in everything but the scoring of suites: there the number must not depend on memory."""
        return FIXED_TOKENS if self.batch_tokens is None else self.batch_tokens


@dataclass
class ReportOptions:
    """How the report judges a run. No model and no figure depends on it."""

    # Differences up to this share of what unlearning should remove do not matter: the model has forgotten if the 90 %
    # interval of knowledge left lies between -margin and margin.
    margin: float = 0.1

    def __post_init__(self) -> None:
        require(0 < self.margin < 1, "margin", "between 0 and 1", self.margin)


@dataclass
class ArtifactsOptions:
    model: SavedModel = SavedModel.full  # what RUN_DIR/model holds


@dataclass
class RunConfig:
    """One run, typed. The plugin groups hold their plugin's own options class."""

    model: Any = MISSING
    dataset: Any = MISSING
    method: Any = MISSING
    reward: Any = MISSING
    adversary: Any = MISSING
    attack: Any = field(default_factory=dict)  # attack name -> its options
    benchmark: Any = field(default_factory=dict)  # name -> options of a benchmark measured beside the data set
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    tracker: TrackerOptions = field(default_factory=TrackerOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    report: ReportOptions = field(default_factory=ReportOptions)
    artifacts: ArtifactsOptions = field(default_factory=ArtifactsOptions)
    seed: int = 0  # for all random numbers of unlearning and of the attacks
    stages: list[Stage] = field(default_factory=lambda: list(Stage))  # they run in this order, whatever order is typed
    plugins: list[str] = field(default_factory=list)  # importable modules with methods, rewards, ... of your own
    output: str = "outputs"  # folder of the run folders
    cache: str = "${output}/.cache"  # folder of learned and unlearned models, and of tokenised rows
    rerun: bool = False  # repeat finished stages

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", "between 0 and 2^63 - 1", self.seed)

    @property
    def models_to_learn(self) -> list[Stage]:
        """The stages among target and oracle that the run learns from base weights."""
        given = {Stage.target: self.model.target, Stage.oracle: self.model.oracle}
        return [stage for stage, path in given.items() if stage in self.stages and path is None]

    @property
    def oracles(self) -> list[str]:
        """The roles of the run's oracles: "oracle", and "oracle@2", ... if several are given or learned."""
        return oracle_roles(len(self.model.oracles) or self.target.oracle_seeds)

    @property
    def only_given_models(self) -> bool:
        """Whether the user names every model, so that the run trains none and reads no base weights."""
        return self.model.unlearned is not None and not self.models_to_learn
