"""Options of scoring models, of a judge model, and of the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from erulab.options.ranges import require, require_not_negative, require_positive

# Options of `evaluation` that change no score of a row; the judge reads rows that are scored already.
NOT_IN_SCORES = ("batch_tokens", "facts", "judge", "samples", "uds")
# Options of `evaluation.judge` that change no verdict.
NOT_IN_VERDICTS = ("key_variable", "retries", "timeout")
# Tokens per forward without gradient, where evaluation.batch_tokens is null and memory does not choose them.
FIXED_TOKENS = 8192


class Compat(Enum):
    none = "none"
    open_unlearning = "open_unlearning"  # its definitions, reported beside ours


class Facts(Enum):
    all = "all"
    validation = "validation"  # the half by which tuning chooses settings
    reported = "reported"  # the other half


class Generator(Enum):
    torch = "torch"  # erulab's own generation
    vllm = "vllm"  # vLLM, where it is installed: one GPU, engine=local; attacks generate with torch all the same


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
    facts: Facts = Facts.all  # the facts of the data set that figures are computed on
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
class ReportOptions:
    """How the report judges a run. No model and no figure depends on it."""

    # Differences up to this share of what unlearning should remove do not matter: the model has forgotten if the 90 %
    # interval of knowledge left lies between -margin and margin.
    margin: float = 0.1

    def __post_init__(self) -> None:
        require(0 < self.margin < 1, "margin", "between 0 and 1", self.margin)
