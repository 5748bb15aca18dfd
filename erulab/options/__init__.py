"""The typed options of a run that are not plugins, and the range checks that every options class uses.

The options of a plugin stand beside its code (`methods/npo.py`, `attacks/relearn.py`). The comment beside or above a
field is its documentation: `python -m erulab.list trainer` prints it.
"""

from __future__ import annotations

from erulab.options.evaluating import (
    FIXED_TOKENS,
    NOT_IN_SCORES,
    NOT_IN_VERDICTS,
    Compat,
    EvaluationOptions,
    Facts,
    Generator,
    JudgeOptions,
    ReportOptions,
    score_options,
)
from erulab.options.ranges import (
    MOST_EPOCHS,
    require,
    require_epochs,
    require_fraction,
    require_not_negative,
    require_positive,
)
from erulab.options.run import (
    ArtifactsOptions,
    ForgetText,
    RunConfig,
    SavedModel,
    Stage,
    TrackerName,
    TrackerOptions,
)
from erulab.options.training import (
    NOT_IN_PRODUCT,
    Combine,
    EngineName,
    EngineOptions,
    Keep,
    Offload,
    OptimizerName,
    Precision,
    Schedule,
    TargetOptions,
    TrainerOptions,
    product_options,
)

__all__ = [
    "ArtifactsOptions",
    "Combine",
    "Compat",
    "EngineName",
    "EngineOptions",
    "EvaluationOptions",
    "Facts",
    "FIXED_TOKENS",
    "ForgetText",
    "Generator",
    "JudgeOptions",
    "Keep",
    "MOST_EPOCHS",
    "NOT_IN_PRODUCT",
    "NOT_IN_SCORES",
    "NOT_IN_VERDICTS",
    "Offload",
    "OptimizerName",
    "Precision",
    "ReportOptions",
    "RunConfig",
    "SavedModel",
    "Schedule",
    "Stage",
    "TargetOptions",
    "TrackerName",
    "TrackerOptions",
    "TrainerOptions",
    "product_options",
    "require",
    "require_epochs",
    "require_fraction",
    "require_not_negative",
    "require_positive",
    "score_options",
]
