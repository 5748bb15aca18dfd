"""The registries of figures: how the rows of a suite are measured, and what is computed over several suites.

A module that `plugins=[...]` names adds a figure with a dataclass and a function:

    @dataclass(frozen=True)
    class WordRecall(Measure):
        ...

    @measures.register(WordRecall)
    def word_recall(measure: WordRecall, row: Row, builder: RequestBuilder) -> RowRequests:
        ...

Suites of its data set then have `measure=WordRecall()`. No torch is imported here, so such a module loads fast.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from erulab.data.rows import Row, Suite
from erulab.errors import ConfigError
from erulab.evaluation.prompt import Prompt
from erulab.evaluation.row_score import RowScore
from erulab.options import EvaluationOptions

if TYPE_CHECKING:
    from erulab.evaluation.scoring import Score
    from erulab.tokens.batch import Encoded
    from erulab.tokens.chat import ChatFormat

Function = TypeVar("Function", bound=Callable[..., Any])
RequestKey = tuple[tuple[int, ...], int, int]


@dataclasses.dataclass(frozen=True)
class RequestBuilder:
    """Turns a row into requests to one model.

    chat: the model's chat format.
    options: the run's `evaluation` options.
    for_attacks_only: a row with candidate values gets only the figures that attacks compare. It then has no truth
        ratio, and costs one forward instead of five.
    """

    chat: ChatFormat
    options: EvaluationOptions
    for_attacks_only: bool = False

    def encode(self, row: Row, response: str, span: tuple[int, int] | None = None) -> Encoded:
        """Returns a teacher-forced request: the row's prompt with a response.

        Args:
            span: first and last (exclusive) character of the response that are scored; None scores all of it.
        """
        return self.chat.encode(row, response, span)

    def prompt(self, row: Row, max_new_tokens: int, stops: tuple[str, ...] = ()) -> Prompt:
        """Returns the row's prompt for generation. The response ends where the model's context ends."""
        ids = tuple(self.chat.encode_prompt(row))
        return Prompt(ids, min(max_new_tokens, self.chat.limit(None) - len(ids)), stops)


@dataclasses.dataclass(frozen=True)
class RowResults:
    """The scores of one row's teacher-forced requests, and its generated response if it requested one."""

    scores: Mapping[RequestKey, Score]
    response: str | None

    def of(self, request: Encoded) -> Score:
        """Returns the score of a teacher-forced request. Rows with the same request share one score."""
        return self.scores[request_key(request)]


@dataclasses.dataclass(frozen=True)
class RowRequests:
    """Everything one row requests of a model, and the function that turns the results into figures.

    requests: teacher-forced requests.
    prompt: a prompt to continue, or None.
    figures: results -> figure -> value.
    needs_moments: the requests' tokens also need the mean and deviation of the model's log-probabilities.
    """

    requests: tuple[Encoded, ...]
    prompt: Prompt | None
    figures: Callable[[RowResults], dict[str, float]]
    needs_moments: bool = False


def request_key(request: Encoded) -> RequestKey:
    """Returns everything that the score of a teacher-forced request depends on."""
    return request.ids, request.start, request.end


class FigureRegistry(Generic[Function]):
    """Maps a frozen dataclass, which a benchmark puts on its suites or summaries, to the function that computes it."""

    def __init__(self, name: str, kind: str) -> None:
        """`name`: the registry's name, such as "measures"; `kind`: one of its entries, such as "measure"."""
        self._name, self._kind = name, kind
        self._functions: dict[type, Function] = {}

    def register(self, options: type) -> Callable[[Function], Function]:
        """Returns a decorator that registers the function that computes the figures of a frozen dataclass.

        Raises:
            ValueError: `options` is no frozen dataclass, or another function computes it already.
        """
        if not dataclasses.is_dataclass(options) or not options.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise ValueError(f"{self._kind} {options.__name__} must be a dataclass with frozen=True")

        def add(function: Function) -> Function:
            taken = self._functions.get(options)
            if taken is not None:
                raise ValueError(
                    f"{self._kind} {options.__name__} is already computed by {taken.__module__}.{taken.__name__}; "
                    "register a dataclass of your own"
                )
            self._functions[options] = function
            return function

        return add

    def function_of(self, options: object, owner: str) -> Function:
        """Returns the function that computes the figures of a registered dataclass' instance.

        Args:
            owner: the suite or benchmark that holds `options`, for the error message.
        Raises:
            ConfigError: its class is not registered.
        """
        name = type(options).__name__
        if type(options) not in self._functions:
            raise ConfigError(
                f"{owner} uses the {self._kind} {name}, which is not registered; put @{self._name}.register({name}) "
                "over the function that computes it"
            )
        return self._functions[type(options)]

    def plugin_code(self, options: object, owner: str) -> str:
        """Returns the options and the hash of the file of a user's own function; "" for one of erulab's.

        Cached scores depend on it, so that an edited function is computed anew.
        """
        module = sys.modules[self.function_of(options, owner).__module__]
        if module.__name__.startswith("erulab.") or module.__file__ is None:
            return ""
        return f"{options} {hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()[:16]}"


# Measure -> (measure, row, request builder) -> what the row requests.
measures: FigureRegistry[Callable[[Any, Row, RequestBuilder], RowRequests]] = FigureRegistry("measures", "measure")
# Summary -> (summary, scored rows of the benchmark) -> figure -> value.
summaries: FigureRegistry[Callable[[Any, Sequence[RowScore]], dict[str, float]]] = FigureRegistry(
    "summaries", "summary"
)


def row_requests(suite: Suite, row: Row, builder: RequestBuilder) -> RowRequests:
    """Returns what one row of a suite requests of a model.

    Raises:
        ConfigError: the suite's measure is not registered.
    """
    return measures.function_of(suite.measure, f"suite {suite.name}")(suite.measure, row, builder)
