"""Figures of texts against the packages the benchmarks use, closed forms and worked examples."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer
from rouge_score.rouge_scorer import RougeScorer

from erulab.data.muse import STOPS
from erulab.evaluation import texts
from erulab.evaluation.figures.fluency import fluency_figures

WORDS = st.lists(st.sampled_from(["the", "The", "author", "was", "born", "in", "Maine", "1947", "a.b", ".", "it."]))


def test_rouge_is_recall_with_stemming() -> None:
    # Longest common subsequence "cat run" of 4 words of the reference.
    assert texts.rouge_recall("the cats were running", "a cat runs fast today") == 0.5
    assert texts.rouge_recall("she was born", "she was born in a town by the sea") == 1.0
    assert texts.rouge_recall("she was born", "") == 0.0


def test_rouge_f1_is_without_stemming() -> None:
    assert texts.rouge_f1("the cats were running", "a cat runs fast today") == 0.0
    # 3 words in common, of 3 and of 9: 2 * 3 / 12.
    assert texts.rouge_f1("she was born", "She was, born in a town by the sea") == pytest.approx(0.5)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pair = ("He wrote three novels about Maine.", "Maine is where he wrote novels, about three of them")
    assert texts.rouge_f1(*pair) == scorer.score(*pair)["rougeL"].fmeasure


def test_summary_rouge_by_hand() -> None:
    assert texts.summary_rouge_recall("Stephen King", "King Stephen") == 0.5  # order counts
    assert texts.summary_rouge_recall("Stephen King", "stephen King,") == 0.0  # so do case and punctuation
    # Distinct words: "the" counts once, so 2 of 3.
    assert texts.summary_rouge_recall("the cat the dog", "the cat") == pytest.approx(2 / 3)
    # Over sentences: w1 w2 from the first, w1 w3 w5 from the second (the paper's own example).
    assert texts.summary_rouge_recall("w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8. w1 w3 w8 w9 w5") == pytest.approx(4 / 5)
    assert texts.summary_rouge_recall("Stephen King", "  ") == 0.0
    assert texts.summary_rouge_recall("NOANSWER", " ") == 1.0
    assert texts.summary_rouge_recall("Stephen King", "...") == texts.summary_rouge_recall(".", "x") == 0.0


@pytest.mark.skipif(find_spec("rouge") is None, reason="the package rouge is not installed: nothing to compare with")
@given(reference=WORDS, response=WORDS)
@settings(max_examples=300, deadline=None)
def test_summary_rouge_is_what_the_package_computes(reference: list[str], response: list[str]) -> None:
    from rouge import Rouge

    right, answer = " ".join(reference), " ".join(response).strip() or "NOANSWER"
    if not right.strip(". ") or not answer.strip("."):
        return  # the package raises
    expected = Rouge().get_scores(answer, right)[0]["rouge-l"]["r"]
    assert texts.summary_rouge_recall(right, " ".join(response)) == pytest.approx(expected, rel=1e-12)


def test_answers_are_compared_after_squad_normalisation() -> None:
    assert texts.normalised_words("The  Queen's 'A-Team', an  ANALYSIS!") == ["queens", "ateam", "analysis"]
    assert texts.answer_f1("He is John Key.", ["Ponytail-gate", "John Key"]) == pytest.approx(2 * 2 / (4 + 2))
    assert texts.answer_f1("key, key", ["John Key"]) == pytest.approx(0.5)  # a word counts as often as in both
    assert texts.answer_f1("Helen Clark", ["John Key"]) == 0.0
    assert texts.answer_f1("the", ["a"]) == 1.0 and texts.answer_f1("", ["John Key"]) == 0.0
    assert texts.answer_exact_match("the john-key", ["JOHN KEY", "Johnkey"]) == 1.0
    assert texts.answer_exact_match("John Key of New Zealand", ["John Key"]) == 0.0


def test_final_answers_of_chains_of_thought() -> None:
    chain = "not True = False. So the answer is False.\nQ: What else? The answer is True."
    assert texts.final_answer(chain) == "False"
    assert texts.final_answer("The answer is  (C) .") == "(C)"
    assert texts.final_answer(" the answer is\nno sentence ") == "the answer is\nno sentence"
    assert texts.final_answer("  ") == texts.final_answer("the answer is .") == texts.NO_ANSWER
    assert texts.answer_exact_match(texts.final_answer("So the answer is (a)."), ["(B)"]) == 0.0
    assert texts.answer_exact_match(texts.final_answer("So the answer is no."), ["No"]) == 1.0


def test_generations_are_cut_at_the_first_stop() -> None:
    assert texts.cut_at(" 1472 \nQuestion: when?\n\nAnswer", STOPS) == " 1472 "
    assert texts.cut_at("1472\n\nmore Question:", STOPS) == "1472"
    assert texts.cut_at("Question: why?", STOPS) == ""
    assert texts.cut_at("a. Question 2\nb", STOPS) == "a. Question 2\nb"
    assert texts.cut_at("one\ntwo", ["\n"]) == "one"


def test_fluency_of_known_distributions() -> None:
    # Eight different words: 7 pairs and 6 triples, each once.
    distinct = 100 * (2 / 3 * math.log2(7) + 4 / 3 * math.log2(6)) / 2
    assert texts.fluency(["one two three four five six seven eight"]) == pytest.approx(distinct)
    assert texts.fluency(["no no no no no no"]) == 0.0  # one pair, one triple
    assert texts.fluency([""]) == texts.fluency(["word"]) == 0.0
    # a b a b a: pairs ab ab ba ba, triples aba bab aba.
    repeated = 100 * (2 / 3 * 1.0 + 4 / 3 * (math.log2(3) - 2 / 3)) / 2
    assert texts.fluency(["x y x y x"]) == pytest.approx(repeated)
    both = ["x y x y x", "one two three four five six seven eight"]
    assert texts.fluency(both) == pytest.approx((repeated + distinct) / 2)


def test_fluency_splits_words_as_nltk_does() -> None:
    """Contractions, punctuation, and full stops at the end of each sentence are words of their own."""
    words = ["I", "ca", "n't", "stop", ".", "It", "'s", "3.5", "km", ",", "they", "said", "."]
    text = "I can't stop. It's 3.5 km, they said."
    split = [w for part in ("I can't stop.", "It's 3.5 km, they said.") for w in NLTKWordTokenizer().tokenize(part)]
    assert split == words
    entropies = [np.log2(len(words) - 1), np.log2(len(words) - 2)]  # all pairs and triples differ
    assert texts.fluency([text]) == pytest.approx(100 * (2 / 3 * entropies[0] + 4 / 3 * entropies[1]) / 2)


# The same sentence in scripts that rouge_score finds no word in.
SENTENCES = {
    "Chinese": ("艾达在老磨坊里织布。", "贝拉在海边烤面包。"),
    "Arabic": ("تنسج آدا القماش في الطاحونة القديمة.", "تخبز بيلا الخبز قرب البحر."),
    "Hindi": ("आदा पुरानी चक्की में कपड़ा बुनती है।", "बेला समुद्र किनारे रोटी पकाती है।"),
    "Thai": ("เอดาทอผ้าในโรงสีเก่า", "เบลลาอบขนมปังริมทะเล"),
    "Russian": ("Ада ткёт полотно на старой мельнице.", "Белла печёт хлеб у моря."),
    "Greek": ("Η Άντα υφαίνει στον παλιό μύλο.", "Η Μπέλα ψήνει ψωμί δίπλα στη θάλασσα."),
    "Japanese": ("エイダは古い水車小屋で布を織る。", "ベラは海辺でパンを焼く。"),
    "Korean": ("에이다는 오래된 방앗간에서 천을 짠다.", "벨라는 바닷가에서 빵을 굽는다."),
    "mixed": ("艾达在 OpenAI 工作, since 2019。", "贝拉在家。"),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_the_same_text_is_found_again_in_every_script(language: str) -> None:
    """FAULTS 38."""
    text, other = SENTENCES[language]
    for figure in (texts.rouge_recall, texts.rouge_f1, texts.summary_rouge_recall):
        assert figure(text, text) == 1.0
        assert figure(text, "I do not know.") == 0.0
        assert figure(text, other) < 0.6
    assert texts.rouge_recall(text, f"{other} {text}") == 1.0
    assert texts.answer_f1(text.rstrip("。.।"), [text]) == texts.answer_exact_match(text, [text]) == 1.0
    assert texts.answer_f1(other, [text]) < 0.6


def test_shares_in_other_scripts_by_hand() -> None:
    # 艾 达 织 of 艾 达 在 磨 坊 织 布.
    assert texts.rouge_recall("艾达在磨坊织布。", "艾达会织。") == pytest.approx(3 / 7)
    assert texts.rouge_f1("艾达在磨坊织布。", "艾达会织。") == pytest.approx(2 * 3 / (7 + 4))
    assert texts.answer_f1("北京。", ["北京"]) == 1.0
    # Two of the reference's sentences, of which one is found.
    assert texts.summary_rouge_recall("甲乙。丙丁。", "丙丁") == 0.5


def test_latin_text_keeps_the_published_words() -> None:
    """What rouge_score computes, accents and a few foreign words included, whatever the response is written in."""
    published = RougeScorer(["rougeL"], use_stemmer=True)
    for reference in ("José Núñez wrote novels.", "Her debut, Війна, was praised by the critics.", "Łódź, 1947"):
        for response in (reference, "Jos wrote a novel", "艾达 wrote novels", "José"):
            assert texts.rouge_recall(reference, response) == published.score(reference, response)["rougeL"].recall


def test_repetition_is_seen_in_scripts_without_spaces() -> None:
    """FAULTS 38: a Chinese text without spaces is not one word."""
    assert texts.fluency(["好" * 20]) == 0.0
    assert texts.fluency(["一二三四五六七八"]) == texts.fluency(["a b c d e f g h"])
    found = fluency_figures("好" * 20)
    assert found["longest_repetition"] == 1.0 and found["distinct_ngrams"] < 0.1
