"""The figures that are computed from texts: agreement with the right answers, and fluency. Pure functions.

Words are those of the benchmarks' published code wherever the right answer is written in Latin script, whatever the
response is. That code finds no words in other scripts, so for right answers in these the words are those of
`erulab.data.words`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

import numpy as np
from nltk.stem import porter
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktSentenceTokenizer
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from erulab.data.words import FULL_STOPS, has_words, is_latin, split_words, split_written, written_words

NO_ANSWER = "NOANSWER"  # RWKU's text in place of an empty answer


class _WordsOfAnyScript(Tokenizer):
    """Finds words in every script; English words among them are stemmed as rouge_score does."""

    def __init__(self, use_stemmer: bool) -> None:
        self._stemmer = porter.PorterStemmer() if use_stemmer else None

    def tokenize(self, text: str) -> list[str]:
        words = split_words(text)
        if self._stemmer is None:
            return words
        return [self._stemmer.stem(word) if word.isascii() and len(word) > 3 else word for word in words]


# is_latin(right answer) -> scorer.
_STEMMED, _UNSTEMMED = (
    {
        True: RougeScorer(["rougeL"], use_stemmer=stems),
        False: RougeScorer(["rougeL"], tokenizer=_WordsOfAnyScript(stems)),
    }
    for stems in (True, False)
)
_SENTENCES = PunktSentenceTokenizer()
_WORDS = NLTKWordTokenizer()
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FULL_STOP = re.compile(r"\.")
_ANY_FULL_STOP = re.compile(f"[{FULL_STOPS}]")
_FINAL_ANSWER = re.compile(r"[tT]he answer is (.*?)\.")


def rouge_recall(reference: str, response: str) -> float:
    """Returns ROUGE-L recall with stemming, in [0, 1], as TOFU computes it; 0 for a reference without words."""
    return float(_STEMMED[is_latin(reference)].score(reference, response)["rougeL"].recall)


def rouge_f1(reference: str, response: str) -> float:
    """Returns ROUGE-L F1 without stemming, in [0, 1]: MUSE's VerbMem and KnowMem, which MUSE gives in percent.

    Source: muse_bench. open-unlearning stems, so its figures are a little higher.
    """
    return float(_UNSTEMMED[is_latin(reference)].score(reference, response)["rougeL"].fmeasure)


def summary_rouge_recall(reference: str, response: str) -> float:
    """Returns RWKU's ROUGE-L recall: the share of the reference's distinct words on a longest common subsequence.

    Sentences end at every full stop and words at white space; case and punctuation count. Scripts without spaces go by
    character, and full stops of other scripts count if the reference is not in Latin script. Each sentence of the
    reference is compared with each sentence of the response, and the common words are united. White space around the
    response is removed; an empty response reads NOANSWER.
    Source: RWKU's eval_forget.py with the package `rouge` 1.0.1. The package is not maintained, and fails if the
    reference or the response consists of full stops only: here the recall is then 0.
    """
    stops = _FULL_STOP if is_latin(reference) else _ANY_FULL_STOP
    references, responses = _split(reference, stops), _split(response.strip() or NO_ANSWER, stops)
    words = set(chain.from_iterable(references))
    if not words:
        return 0.0
    found = {word for one in references for other in responses for word in _common_words(one, other)}
    return len(found) / len(words)


def answer_f1(response: str, answers: Sequence[str]) -> float:
    """Returns TriviaQA's and RWKU's F1 over the words of the normalised texts, against the best of the answers.

    Args:
        answers: the texts that count as right, at least one.
    Source: SQuAD's normalisation: lower case, no ASCII punctuation, no articles. Two texts without words have F1 1.
    """
    return max(_word_f1(*_normalised_pair(response, answer)) for answer in answers)


def answer_exact_match(response: str, answers: Sequence[str]) -> float:
    """Returns 1 if the normalised response equals one of the normalised answers, else 0.

    Normalisation removes brackets and signs, which some of BBH's answers consist of: `) )` equals `] ]` and `-9` equals
    `9`. RWKU scores BBH in this way, and passes the answer's characters one by one, so that an answer of several
    letters is never right. Its published figures contain both effects.
    """
    pairs = (_normalised_pair(response, answer) for answer in answers)
    return float(any(words == right for words, right in pairs))


def normalised_words(text: str) -> list[str]:
    """Returns the words of a text in lower case, without ASCII punctuation and the articles a, an, the."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def final_answer(response: str) -> str:
    """Returns the final answer of a chain of thought: the text from the first "the answer is" to the next full stop.

    Without such a sentence on one line it is the whole response; an empty answer reads NOANSWER.
    Source: RWKU's eval_bbh.py.
    """
    found = _FINAL_ANSWER.search(response)
    return (found[1] if found else response).strip() or NO_ANSWER


def cut_at(response: str, stops: Iterable[str]) -> str:
    """Returns the response up to the first of the stops, with its white space."""
    return response[: min((at for stop in stops if (at := response.find(stop)) >= 0), default=len(response))]


def fluency(responses: Sequence[str]) -> float:
    """Returns RWKU's fluency: 100 times the mean over responses of (2/3 H2 + 4/3 H3) / 2.

    H2 and H3 are the entropies, in bits, of the pairs and triples of words of one response; 0 if it has none.
    Args:
        responses: at least one text.
    Source: RWKU's eval_fluency.py. Both split words with NLTK. RWKU splits sentences with NLTK's trained English model,
        which has to be downloaded; here the same splitter is untrained. It takes an abbreviation for the end of a
        sentence more often, and then cuts off its full stop: a difference of 0.1 in 708 on RWKU's passages
        (1200 characters each).
    """
    return 100 * float(np.mean([_ngram_entropy(_nltk_words(response)) for response in responses]))


def _normalised_pair(response: str, answer: str) -> tuple[list[str], list[str]]:
    """Returns the words of both texts: SQuAD's, or those of any script if the answer has others than Latin words."""
    words = normalised_words if is_latin(answer) or not has_words(answer) else split_words
    return words(response), words(answer)


def _split(text: str, stops: re.Pattern[str]) -> list[list[str]]:
    split = str.split if stops is _FULL_STOP else written_words
    # As in the package `rouge`, a sentence that is only white space is one empty word, which counts as a word.
    return [split(sentence) or [""] for sentence in stops.split(text) if sentence]


def _common_words(reference: Sequence[str], response: Sequence[str]) -> set[str]:
    """Returns the words of a longest common subsequence: if there are several, of the one the package `rouge` finds.

    The choice matters, because they can contain different words.
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


def _nltk_words(text: str) -> list[str]:
    found = (word for sentence in _SENTENCES.tokenize(text) for word in _WORDS.tokenize(sentence))
    return [piece for word in found for piece in split_written(word)]


def _ngram_entropy(words: Sequence[str]) -> float:
    pairs, triples = pairwise(words), zip(words, words[1:], words[2:], strict=False)
    return (2 / 3 * _entropy(Counter(pairs)) + 4 / 3 * _entropy(Counter(triples))) / 2


def _entropy(counts: Counter[tuple[str, ...]]) -> float:
    """Returns the entropy of the relative frequencies, bits."""
    shares = np.fromiter(counts.values(), dtype=np.float64) / max(counts.total(), 1)
    return float(-np.sum(shares * np.log2(shares)))
