"""All options of one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from omegaconf import MISSING

from erulab.options.evaluating import EvaluationOptions, ReportOptions
from erulab.options.ranges import require
from erulab.options.training import EngineOptions, TargetOptions, TrainerOptions
from erulab.roles import oracle_roles


class Stage(Enum):
    """The stages of a run, in the order in which they run."""

    target = "target"
    oracle = "oracle"
    unlearn = "unlearn"
    evaluate = "evaluate"
    attack = "attack"
    report = "report"


class TrackerName(Enum):
    wandb = "wandb"
    tensorboard = "tensorboard"
    mlflow = "mlflow"
    trackio = "trackio"
    none = "none"


@dataclass
class TrackerOptions:
    """Where figures are sent while a run works. metrics.jsonl is always written."""

    name: TrackerName = TrackerName.wandb
    project: Optional[str] = None  # wandb's or Trackio's project, MLflow's experiment; null: WANDB_PROJECT, or erulab
    entity: Optional[str] = None  # the wandb team or user; null: WANDB_ENTITY, or your default one
    group: Optional[str] = None  # null: WANDB_RUN_GROUP; else the jobs of a sweep share one, a single run has none
    tags: list[str] = field(default_factory=list)  # beside method, data set, reward, adversary and WANDB_TAGS
    samples: bool = False  # send generated text to wandb too; it can contain what must be forgotten


class SavedModel(Enum):
    full = "full"
    adapter = "adapter"  # the adapter of model.lora alone, to be loaded on top of the target
    wandb = "wandb"  # the full model, also sent to wandb as an artifact
    none = "none"


class ForgetText(Enum):
    keep = "keep"
    hash_only = "hash_only"  # SHA-256 in the place of each text; the cache keeps rows and responses


@dataclass
class ArtifactsOptions:
    model: SavedModel = SavedModel.full  # what RUN_DIR/model holds
    # what samples.json, judged.jsonl, alternatives.json and the report hold of prompts, references and responses
    forget_text: ForgetText = ForgetText.keep
    private: bool = False  # close the run folder, the sweep folder and the cache folder to other users (0700)


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
