"""The numbers that are read off texts: agreement with the right answers, and fluency. Nothing here touches a model."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

import numpy as np
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktSentenceTokenizer
from rouge_score.rouge_scorer import RougeScorer

NO_ANSWER = "NOANSWER"  # what RWKU puts in the place of an empty answer

_STEMMED = RougeScorer(["rougeL"], use_stemmer=True)
_UNSTEMMED = RougeScorer(["rougeL"], use_stemmer=False)
_SENTENCES = PunktSentenceTokenizer()
_WORDS = NLTKWordTokenizer()
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FINAL_ANSWER = re.compile(r"[tT]he answer is (.*?)\.")


def rouge_recall(reference: str, response: str) -> float:
    """ROUGE-L recall with stemming: TOFU's."""
    return float(_STEMMED.score(reference, response)["rougeL"].recall)


def rouge_f1(reference: str, response: str) -> float:
    """ROUGE-L F1 without stemming: MUSE's VerbMem and KnowMem, as a share, not in percent.

    Source: muse_bench. open-unlearning stems, so that its figures are a little higher.
    """
    return float(_UNSTEMMED.score(reference, response)["rougeL"].fmeasure)


def summary_rouge_recall(reference: str, response: str) -> float:
    """RWKU's ROUGE-L recall: the share of the reference's distinct words that lie on a longest common subsequence.

    Sentences end at every full stop, words at white space; case and punctuation count. Each sentence of the reference
    is compared with each of the response, and the words found are put together. White space around the response goes;
    what is left empty reads NOANSWER.
    Source: what the package `rouge` 1.0.1 computes for RWKU (eval_forget.py). The package is not maintained, and stops
    where a side consists of full stops only: here the recall is 0 then.
    """
    references, responses = _split(reference), _split(response.strip() or NO_ANSWER)
    words = set(chain.from_iterable(references))
    if not words:
        return 0.0
    found = {word for one in references for other in responses for word in _common(one, other)}
    return len(found) / len(words)


def answer_f1(response: str, answers: Sequence[str]) -> float:
    """F1 over the words of the normalised texts, against the answer that fits best: TriviaQA's and RWKU's.

    Args:
        answers: the texts that count as right, at least one.
    Source: SQuAD's normalisation: lower case, no ASCII punctuation, no articles. Two texts without any word agree.
    """
    return max(_word_f1(normalised_words(response), normalised_words(answer)) for answer in answers)


def answer_exact_match(response: str, answers: Sequence[str]) -> float:
    """1 if the normalised response is one of the normalised answers, else 0.

    Normalisation drops what BBH's bracket sequences and signs are made of: `) )` equals `] ]` and `-9` equals `9`. RWKU
    scores BBH so, and hands over the answer's characters one by one, so that an answer of several letters is never
    right: its published figures have both in them.
    """
    words = normalised_words(response)
    return float(any(words == normalised_words(answer) for answer in answers))


def normalised_words(text: str) -> list[str]:
    """The words of a text in lower case, without ASCII punctuation and the articles a, an, the."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def final_answer(response: str) -> str:
    """What a chain of thought ends in: the text between the first "the answer is" and the next full stop of that line.

    Without such a sentence it is the whole response, and NOANSWER where nothing is left.
    Source: RWKU's eval_bbh.py.
    """
    found = _FINAL_ANSWER.search(response)
    return (found[1] if found else response).strip() or NO_ANSWER


def cut_at(response: str, stops: Iterable[str]) -> str:
    """The response before the first of the stops, white space kept."""
    return response[: min((at for stop in stops if (at := response.find(stop)) >= 0), default=len(response))]


def fluency(responses: Sequence[str]) -> float:
    """RWKU's fluency: 100 times the mean over responses of (2/3 H2 + 4/3 H3) / 2.

    H2 and H3 are the entropies, in bits, of a response's own pairs and triples of words; 0 where it has none.
    Args:
        responses: at least one text.
    Source: RWKU's eval_fluency.py. Words are NLTK's in both. Sentences are split there with NLTK's trained English
        model, a download, and here with the same splitter untrained, which takes an abbreviation for the end of a
        sentence more often and then cuts its full stop off: .1 in 708 on RWKU's passages (1200 characters each).
    """
    return 100 * float(np.mean([_ngram_entropy(_words(response)) for response in responses]))


def _split(text: str) -> list[list[str]]:
    # The package keeps a sentence of white space alone as one empty word, which then counts as a word.
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _common(reference: Sequence[str], response: Sequence[str]) -> set[str]:
    """The words of one longest common subsequence; of several, the one the package `rouge` finds.

    Which one is taken changes the figure where they hold different words.
    """
    rows, columns = len(reference), len(response)
    length = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i, word in enumerate(reference):
        for j, other in enumerate(response):
            length[i + 1][j + 1] = length[i][j] + 1 if word == other else max(length[i][j + 1], length[i + 1][j])
    found = set()
    while rows and columns:
        if reference[rows - 1] == response[columns - 1]:
            rows, columns = rows - 1, columns - 1
            found.add(reference[rows])
        elif length[rows - 1][columns] > length[rows][columns - 1]:
            rows -= 1
        else:
            columns -= 1
    return found


def _word_f1(words: Sequence[str], reference: Sequence[str]) -> float:
    if not words or not reference:
        return float(words == reference)
    common = (Counter(words) & Counter(reference)).total()
    return 2 * common / (len(words) + len(reference))


def _words(text: str) -> list[str]:
    return [word for sentence in _SENTENCES.tokenize(text) for word in _WORDS.tokenize(sentence)]


def _ngram_entropy(words: Sequence[str]) -> float:
    pairs, triples = pairwise(words), zip(words, words[1:], words[2:], strict=False)
    return (2 / 3 * _entropy(Counter(pairs)) + 4 / 3 * _entropy(Counter(triples))) / 2


def _entropy(counts: Counter[tuple[str, ...]]) -> float:
    """Entropy of the shares of the counts, bits."""
    shares = np.fromiter(counts.values(), dtype=np.float64) / max(counts.total(), 1)
    return float(-np.sum(shares * np.log2(shares)))
