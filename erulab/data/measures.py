"""Measures: the benchmarks' protocols as data; `erulab.evaluation.protocols` computes their figures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Measure:
    """The protocol by which the rows of a suite are measured. Subclasses are frozen dataclasses; the registry
    `erulab.evaluation.measures` holds the function that computes the figures of each.

    knowledge: figures in [0, 1] that say how much of a row a model knows, higher for more. Attacks and trajectories
        compare them; a suite without any is left out there.
    generates: whether all figures are computed from a generated response.
    """

    knowledge: tuple[str, ...] = ()
    generates: bool = False


class Summary:
    """A figure over several suites. Subclasses are frozen dataclasses, registered as those of `Measure` are."""


@dataclass(frozen=True)
class Answers(Measure):
    """TOFU's protocol: how likely the response is, compared with wrong ones; and what the model answers.

    Figures: nll, probability, extraction_strength, exact_memorization, rouge, exact_match; where a row has wrong
    answers or values also log_truth_ratio, log_truth_ratio_arithmetic, log_odds, choice.
    """

    knowledge = ("probability", "rouge", "choice")
    right: str = "paraphrase"  # what the truth ratio compares with wrong answers: the paraphrase, or the "answer"


@dataclass(frozen=True)
class Choice(Measure):
    """Multiple choice: the response against `options`, by the log-probability of the whole continuation.

    Figures: accuracy, log_odds; with `normalized` also accuracy_norm, by the log-probability per character of the
    answer (lm-evaluation-harness's acc_norm). A tie counts as wrong; the harness takes the first of the choices.
    """

    knowledge = ("accuracy",)
    normalized: bool = False


class Overlap(Enum):
    """The figure that compares a generated response with the reference."""

    rouge_recall = "rouge_recall"  # ROUGE-L recall, stemmed (TOFU)
    rouge_f1 = "rouge_f1"  # ROUGE-L F1, not stemmed (MUSE)
    rwku_recall = "rwku_recall"  # ROUGE-L recall of the package `rouge` (RWKU)
    f1 = "f1"  # words in common with the best of the accepted answers (TriviaQA)
    final_answer = "final_answer"  # the text after "the answer is" equals the response (BBH)
    # That text equals one of the response's characters, apart from case, punctuation and articles: RWKU's code for BBH.
    final_answer_character = "final_answer_character"
    entropy = "entropy"  # of its own n-grams; there is no reference (RWKU's fluency)


@dataclass(frozen=True)
class Generated(Measure):
    """A greedy response, compared with the row's response. The figure has the overlap's name."""

    generates = True
    overlap: Overlap
    max_new_tokens: int
    stops: tuple[str, ...] = ()  # the response ends before the first of them
    reference_tokens: int | None = None  # tokens of the row's response that count; None: all

    @property
    def knowledge(self) -> tuple[str, ...]:  # type: ignore[override]
        """The overlap; entropy has no reference, so it says nothing about knowledge."""
        return () if self.overlap is Overlap.entropy else (self.overlap.value,)


@dataclass(frozen=True)
class Texts(Measure):
    """Membership inference: how likely a text is, or a response given its prompt.

    Figures: nll, zlib, min_k, min_k_plus_plus, where higher means less like a member; and probability, per token.
    """


@dataclass(frozen=True)
class Pooled(Summary):
    """`<name>/<figure>`: the mean of a figure over the rows of several suites, each row counting once."""

    name: str
    figure: str
    suites: tuple[str, ...]


@dataclass(frozen=True)
class Separation(Summary):
    """Membership inference between two suites of texts: `<name>/auc_<score>`, and PrivLeak against a retrained model.

    AUC = P(a text of `forget` looks less like a member than one of `holdout`). The retrained model is the run's oracle,
    unless `retrained` gives a published AUC on min-k in its place.
    """

    name: str
    forget: str
    holdout: str
    retrained: float | None = None
