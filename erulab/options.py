"""The typed options of a run that are not plugins, and the range checks every options class uses.

Plugins' options stand beside their code (`methods/npo.py`, `attacks/relearn.py`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from omegaconf import MISSING

MOST_EPOCHS = 1_000_000
# Options of `trainer` and `target` that change how a model is trained, but not what comes out.
NOT_IN_SCORES = ("batch_tokens", "samples")  # options of `evaluation` that change no figure
NOT_IN_PRODUCT = ("micro_batch", "micro_tokens", "log_every", "save_every", "checkpointing", "compile")


def require(holds: bool, field_name: str, allowed: str, value: Any) -> None:
    """Raises ValueError("<field> must be <allowed>, got <value>") unless `holds`."""
    if not holds:
        raise ValueError(f"{field_name} must be {allowed}, got {value}")


def positive(field_name: str, value: float | None) -> None:
    """Finite and > 0, or null."""
    require(value is None or (math.isfinite(value) and value > 0), field_name, "> 0", value)


def not_negative(field_name: str, value: float | None) -> None:
    """Finite and >= 0, or null."""
    require(value is None or (math.isfinite(value) and value >= 0), field_name, ">= 0", value)


def epochs(field_name: str, value: float) -> None:
    """Finite, > 0 and few enough to be counted in steps."""
    require(0 < value <= MOST_EPOCHS, field_name, f"> 0 and at most {MOST_EPOCHS}", value)


def fraction(field_name: str, value: float) -> None:
    """In [0, 1]."""
    require(0 <= value <= 1, field_name, "between 0 and 1", value)


class Stage(Enum):
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


class Precision(Enum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class EngineName(Enum):
    auto = "auto"
    local = "local"
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
    open_unlearning = "open_unlearning"  # its numbers beside the right ones


class SavedModel(Enum):
    full = "full"
    adapter = "adapter"  # of model.lora, to be put on the target
    none = "none"


@dataclass
class TrainerOptions:
    """Unlearning and the attacks' fine-tuning. `steps` wins over `epochs`; accumulation is derived."""

    lr: float = 1e-5
    epochs: float = 5
    steps: Optional[int] = None
    global_batch: int = 32  # forget rows a step (a pair is one); as many retain rows go with them
    micro_batch: Optional[int] = None  # forget rows a forward; null: global_batch / processes
    # Or a budget of tokens a forward, which picks the micro batch by itself; learning and attacks keep to it too.
    micro_tokens: Optional[int] = None
    weight_decay: float = 0.01
    warmup: float = 0.1  # share of the steps
    schedule: Schedule = Schedule.linear
    clip: float = 1.0  # gradient norm; 0: no clipping
    log_every: int = 1
    save_every: Optional[int] = None  # steps between resumable checkpoints; null: only when stopped
    eval_every: Optional[int] = None  # steps between looks at what is forgotten and kept so far; null: none
    precision: Precision = Precision.auto
    checkpointing: bool = False  # gradient checkpointing
    compile: bool = False  # torch.compile, block by block

    def __post_init__(self) -> None:
        positive("lr", self.lr)
        epochs("epochs", self.epochs)
        positive("steps", self.steps)
        positive("global_batch", self.global_batch)
        positive("micro_batch", self.micro_batch)
        positive("micro_tokens", self.micro_tokens)
        alone = self.micro_batch is None or self.micro_tokens is None
        require(alone, "micro_tokens", "null where micro_batch is set (both size a forward)", self.micro_tokens)
        not_negative("weight_decay", self.weight_decay)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        not_negative("clip", self.clip)
        positive("log_every", self.log_every)
        positive("save_every", self.save_every)
        positive("eval_every", self.eval_every)


@dataclass
class TargetOptions:
    """Learning the target and the oracle: never changed by a sweep over `trainer.*` or `seed`."""

    lr: float = 1e-5
    epochs: float = 5
    global_batch: int = 32
    micro_batch: Optional[int] = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Schedule = Schedule.linear
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        positive("lr", self.lr)
        epochs("epochs", self.epochs)
        positive("global_batch", self.global_batch)
        positive("micro_batch", self.micro_batch)
        not_negative("weight_decay", self.weight_decay)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        not_negative("clip", self.clip)


@dataclass
class EngineOptions:
    """Where training runs. `auto`: local on CPU or one GPU, zero2 from two GPUs on."""

    name: EngineName = EngineName.auto
    processes: Optional[int] = None  # on each host; null: one a GPU, or 1
    nodes: int = 1  # hosts; the same command is typed on each
    rendezvous: Optional[str] = None  # HOST:PORT where they meet, HOST one of them
    offload: Offload = Offload.none  # optimizer state (zero3: weights too) in host memory; nvme: the state on a disk
    nvme_path: Optional[str] = None  # folder on that disk

    def __post_init__(self) -> None:
        positive("processes", self.processes)
        positive("nodes", self.nodes)
        address = re.fullmatch(r"[\w.-]+:(\d{1,5})", self.rendezvous or "any:1")
        fits = address is not None and 0 < int(address[1]) < 2**16
        require(fits, "rendezvous", "HOST:PORT with a port between 1 and 65535", self.rendezvous)

    @property
    def world(self) -> int:
        """Processes over all hosts; of definite options only."""
        return self.nodes * (self.processes or 1)


@dataclass
class TrackerOptions:
    """wandb, offline where no key is set, or none. metrics.jsonl is always written."""

    name: TrackerName = TrackerName.wandb
    project: str = "erulab"
    group: Optional[str] = None
    samples: bool = False  # send generated text to wandb too: it can hold what must be forgotten


@dataclass
class EvaluationOptions:
    batch_tokens: int = 8192  # tokens a forward computes
    generate: bool = True  # greedy responses, ROUGE-L and exact match
    max_new_tokens: int = 200
    rows: Optional[int] = None  # at most this many rows of a suite that is not a forget suite; null: all
    # Which suites are measured and attacked: names, exact or ending in *, with their benchmark's name in front or not
    # (forget*, tofu/retain); null: all.
    suites: Optional[list[str]] = None
    samples: int = 5  # generations a suite shown in the report
    compat: Compat = Compat.none  # TOFU's figures once more, as another framework computes them

    def __post_init__(self) -> None:
        positive("batch_tokens", self.batch_tokens)
        positive("max_new_tokens", self.max_new_tokens)
        positive("rows", self.rows)
        if self.suites is not None:
            require(bool(self.suites) and all(self.suites), "suites", "a list such as [forget*,retain]", self.suites)
        not_negative("samples", self.samples)


@dataclass
class ArtifactsOptions:
    model: SavedModel = SavedModel.full


@dataclass
class RunConfig:
    """One run, typed. The plugin groups hold their plugin's own options class."""

    model: Any = MISSING
    dataset: Any = MISSING
    method: Any = MISSING
    reward: Any = MISSING
    adversary: Any = MISSING
    attack: Any = field(default_factory=dict)  # attack name -> its options
    benchmark: Any = field(default_factory=dict)  # benchmark name -> its options: measured beside the data set
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    tracker: TrackerOptions = field(default_factory=TrackerOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    artifacts: ArtifactsOptions = field(default_factory=ArtifactsOptions)
    seed: int = 0
    stages: list[Stage] = field(default_factory=lambda: list(Stage))
    plugins: list[str] = field(default_factory=list)
    output: str = "outputs"
    cache: str = "${output}/.cache"
    rerun: bool = False  # repeat finished stages

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", "between 0 and 2^63 - 1", self.seed)

    @property
    def learned(self) -> list[Stage]:
        """Those of target and oracle that the run learns from base weights."""
        given = {Stage.target: self.model.target, Stage.oracle: self.model.oracle}
        return [stage for stage, path in given.items() if stage in self.stages and path is None]

    @property
    def learns_nothing(self) -> bool:
        """Whether every model is one that the user names: nothing is made, no base model is read."""
        return self.model.unlearned is not None and not self.learned
