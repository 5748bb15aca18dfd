"""The figures of TOFU the plain way, as public code computes them: each by itself, padded batches, nothing shared.

Written from the definitions (evaluation/README.md) on transformers and rouge_score alone, without erulab's scoring,
generation or metrics, so that equal figures verify them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from rouge_score.rouge_scorer import RougeScorer

from erulab.bench.measure import DEVICE
from erulab.bench.plain import IGNORED, PlainBatch, pad, row_nll
from erulab.data.measures import Answers
from erulab.data.rows import Role, Row, Suite
from erulab.models.loaded import LoadedModel

BATCH = 32  # rows per batch, the default of open-unlearning


class PlainEvaluation:
    """Computes the figures of a model on suites of TOFU's protocol, one metric after another."""

    def __init__(self, loaded: LoadedModel, max_new_tokens: int) -> None:
        self._loaded, self._new = loaded, max_new_tokens

    def forced(self, suites: Sequence[Suite]) -> dict[str, float]:
        """Returns `<suite>/<figure>` of the teacher-forced metrics, each with its own forwards."""
        figures: dict[str, Callable[[Suite], float]] = {
            "probability": self._probability,
            "truth_ratio": self._truth_ratio,
            "extraction_strength": lambda suite: self._memorised(suite, plain_extraction_strength),
            "exact_memorization": lambda suite: self._memorised(suite, statistics.fmean),
        }
        with torch.no_grad():
            return {f"{suite.name}/{name}": figure(suite) for suite in suites for name, figure in figures.items()}

    def generated(self, suites: Sequence[Suite]) -> dict[str, float]:
        """Returns `<suite>/<figure>` of the greedy responses."""
        with torch.no_grad():
            return {f"{suite.name}/{name}": value for suite in suites for name, value in self._responses(suite).items()}

    def _probability(self, suite: Suite) -> float:
        own = [math.exp(-nll) for nll in self._nll(suite.rows, [row.response for row in suite.rows])]
        if not suite.rows[0].options:
            return statistics.fmean(own)
        wrong = [
            self._nll(suite.rows, [row.options[i] for row in suite.rows]) for i in range(len(suite.rows[0].options))
        ]
        others = [sum(math.exp(-nll) for nll in nlls) for nlls in zip(*wrong, strict=True)]
        return statistics.fmean(p / (p + q) for p, q in zip(own, others, strict=True))

    def _truth_ratio(self, suite: Suite) -> float:
        answer = isinstance(suite.measure, Answers) and suite.measure.right == "answer"
        right = self._nll(suite.rows, [row.response if answer else str(row.paraphrase) for row in suite.rows])
        wrong = [
            self._nll(suite.rows, [row.perturbed[i] for row in suite.rows]) for i in range(len(suite.rows[0].perturbed))
        ]
        ratios = [math.exp(r - statistics.fmean(w)) for r, w in zip(right, zip(*wrong, strict=True), strict=True)]
        if suite.role in (Role.FORGET, Role.HELDOUT):
            return statistics.fmean(min(ratio, 1 / ratio) for ratio in ratios)
        return statistics.fmean(max(0.0, 1 - ratio) for ratio in ratios)

    def _memorised(self, suite: Suite, figure: Callable[[Sequence[float]], float]) -> float:
        values = []
        for batch, rows in self._batches(suite.rows, [row.response for row in suite.rows]):
            logits = self._loaded.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits.float()
            greedy, labels = logits.argmax(-1)[:, :-1].tolist(), batch.labels[:, 1:].tolist()
            for row, guessed, right in zip(rows, greedy, labels, strict=True):
                hits = [float(a == b) for a, b in zip(guessed, right, strict=True) if b != IGNORED]
                whole = self._loaded.chat.encode(row)
                values.append(figure(hits[: len(hits) - self._loaded.chat.closing(whole)]))
        return statistics.fmean(values)

    def _responses(self, suite: Suite) -> dict[str, float]:
        scorer = RougeScorer(["rougeL"], use_stemmer=True)
        chat, pad_id = self._loaded.chat, self._loaded.pad_id
        model: Any = self._loaded.model
        rouge, exact = [], []
        for first in range(0, len(suite.rows), BATCH):
            rows = suite.rows[first : first + BATCH]
            prompts = [chat.encode_prompt(row) for row in rows]
            longest = max(map(len, prompts))
            ids = torch.tensor([[pad_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=DEVICE)
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=DEVICE)
            made = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=self._new,
                do_sample=False,
                eos_token_id=list(chat.stop_ids),
                pad_token_id=pad_id,
            )
            for row, new in zip(rows, made[:, longest:].tolist(), strict=True):
                end = next((i for i, token in enumerate(new) if token in chat.stop_ids), len(new))
                response = chat.decode(new[:end])
                rouge.append(scorer.score(row.response, response)["rougeL"].recall)
                exact.append(float(response.strip() == row.response.strip()))
        return {"rouge": statistics.fmean(rouge), "exact_match": statistics.fmean(exact)}

    def _nll(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float]:
        """Returns the per-token NLL, in nats, of a response to each row's prompt."""
        values: list[float] = []
        for batch, _ in self._batches(rows, responses):
            total, tokens = row_nll(self._loaded.model, batch)
            values += (total / tokens).tolist()
        return values

    def _batches(self, rows: Sequence[Row], responses: Sequence[str]) -> Iterator[tuple[PlainBatch, Sequence[Row]]]:
        encode = self._loaded.chat.encode
        for first in range(0, len(rows), BATCH):
            some = rows[first : first + BATCH]
            texts = responses[first : first + BATCH]
            encoded = [encode(row, text) for row, text in zip(some, texts, strict=True)]
            yield pad(encoded, self._loaded.pad_id), some


def plain_extraction_strength(hits: Sequence[float]) -> float:
    """Returns the share of a response that the model completes by itself: the run of right tokens at its end."""
    run = 0
    while run < len(hits) and hits[len(hits) - 1 - run]:
        run += 1
    return run / len(hits)
