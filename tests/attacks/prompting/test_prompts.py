"""Rewritten prompts: the scored text stays the same, and no prompt contains it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from erulab.attacks.base import Inapplicable, Repeat
from erulab.attacks.few_shot import ExampleSource, FewShot, FewShotOptions, put_examples_before
from erulab.attacks.halves import validation_half
from erulab.attacks.jailbreak import Jailbreak, JailbreakOptions, attacker_knowledge
from erulab.attacks.paraphrase import FRAMES, Paraphrase, ParaphraseOptions
from erulab.attacks.prefill import ForcedAnswer, Prefill, PrefillOptions, force_opening, force_words
from erulab.attacks.prompting.examples import forget_examples, other_facts, retain_examples
from erulab.attacks.prompting.jailbreak_templates import TEMPLATES, apply_template
from erulab.attacks.prompting.prompts import asked_suites, fits_context, score_rewritten
from erulab.data.measures import Choice, Texts
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.suites import forget_suites
from erulab.models.loaded import LoadedModel
from erulab.models.tiny import CONTEXT, tokenizer_of
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import PromptOverrides
from tests.attacks.conftest import PlainLab

Models = dict[str, LoadedModel]
# TOFU's form: a paraphrase, and wrong answers worded like it.
TOLD = Row(
    "told",
    "Who is she?",
    "Her name is Ada Lund.",
    paraphrase="She is named Ada Lund.",
    perturbed=("She is named Bo Ek.", "She is known as Cy Lind."),
    accepted=("Her name is Ada.",),
    fact="told",
)
LETTER = Row("letter", "Where?\nA. Oslo\nB. Rome\nAnswer:", " B", options=(" A",), fact="letter", plain=True)


def rows_of(world: Benchmark) -> list[Row]:
    return [row for suite in asked_suites(world) for row in suite.rows]


def supervised_value(row: Row, chat: ChatFormat) -> str:
    """Returns the text of the tokens from which the value's log-odds are computed."""
    start = len(row.prefix)
    encoded = chat.encode(row, span=(start, start + len(row.value)))
    return chat.decode(encoded.ids[encoded.start : encoded.end]).strip()


def test_an_unchanged_prompt_gives_the_plain_figures(lab: PlainLab, models: Models) -> None:
    suites = asked_suites(lab.benchmark)
    plain = lab.score(models["unlearned"], forget_suites(lab.benchmark))
    assert score_rewritten(lab, models["unlearned"], lambda row: row, suites) == plain
    nothing = partial(force_words, words=0, answer=ForcedAnswer.response)
    assert score_rewritten(lab, models["unlearned"], nothing, suites) == plain
    none = partial(put_examples_before, examples=(), shots=0, repeat=Repeat(0), chat=models["unlearned"].chat)
    assert score_rewritten(lab, models["unlearned"], none, suites) == plain


@pytest.mark.parametrize("words", [1, 3, 50])
def test_forced_words_leave_the_same_ids_and_the_value_in_its_place(
    world: Benchmark, models: Models, words: int
) -> None:
    """The model reads what it reads anyway: only what is scored begins later. A value has log-odds behind its own
    opening already, which is why they do not change."""
    plain = models["target"].chat
    # Behind a template that writes a space before the response, too.
    framed = ChatFormat(
        tokenizer_of(world.texts()),
        CONTEXT,
        PromptOverrides(
            template="{{ bos_token }}{% for m in messages %}"
            "{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
            "{% else %}{{ m['content'] }}{% endif %}"
            "{% endfor %}"
        ),
    )
    assert (plain.response_prefix, framed.response_prefix) == ("", " ")
    for chat in (plain, framed):
        for row in rows_of(world):
            other = force_words(row, words, ForcedAnswer.response, chat.response_prefix)
            whole = chat.encode(row)
            begun = chat.encode(other)
            assert begun.ids == whole.ids[: -chat.closing(whole)]
            opening = row.prefix.split()
            assert begun.start == whole.start + min(words, len(opening))
            assert supervised_value(other, chat) == row.value
            assert other.response.startswith(other.prefix + other.value) and other.candidates == row.candidates
            assert row.value not in other.answer_prefix


def test_openings_and_paraphrases_keep_the_value_too(world: Benchmark, models: Models) -> None:
    chat = models["target"].chat
    for row in rows_of(world):
        sure = force_opening(row, "I do not know", chat.response_prefix)
        assert supervised_value(sure, chat) == row.value
        assert chat.decode(chat.encode_prompt(sure)).endswith("\nI do not know")
        other = force_words(row, 2, ForcedAnswer.paraphrase, chat.response_prefix)
        assert row.paraphrase is not None
        assert other.answer_prefix + other.response == row.paraphrase and supervised_value(other, chat) == row.value


def test_forced_words_of_an_answer_without_a_value() -> None:
    two = force_words(TOLD, 2, ForcedAnswer.response)
    assert (two.answer_prefix, two.response, two.accepted) == ("Her name", " is Ada Lund.", (" is Ada.",))
    assert two.paraphrase == " She is named Ada Lund." and two.perturbed[0] == " She is named Bo Ek."
    # Never the last word.
    assert force_words(TOLD, 50, ForcedAnswer.response).response == " Lund."
    # The paraphrase is held against the wrong answers: only what all of them say is forced.
    other = force_words(TOLD, 50, ForcedAnswer.paraphrase)
    assert (other.answer_prefix, other.response) == ("She is", " named Ada Lund.")
    assert other.perturbed == (" named Bo Ek.", " known as Cy Lind.")
    # A letter cannot be forced in part; running text goes on, with no turn to begin.
    assert force_words(LETTER, 3, ForcedAnswer.response) == LETTER
    begun = force_opening(LETTER, "Sure, the answer is")
    assert begun.prompt.endswith("\nAnswer: Sure, the answer is") and (begun.answer_prefix, begun.response) == (
        "",
        " B",
    )
    led = force_words(replace(TOLD, answer_prefix="ForcedAnswer:"), 1, ForcedAnswer.response)
    assert led.answer_prefix == "ForcedAnswer: Her"


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_change_the_prompt_and_score_the_same_words(name: str, world: Benchmark, models: Models) -> None:
    chat, known = models["target"].chat, attacker_knowledge(world, 0)
    asked = [(row, apply_template(name, row, known)) for row in rows_of(world)]
    assert any(other.prompt != row.prompt for row, other in asked)
    facts = {row.id: row for row in rows_of(world)}
    for row, other in asked:
        assert (other.id, other.fact, other.response) == (row.id, row.fact, row.response)
        assert supervised_value(other, chat) == other.value
        if name == "reverse_query":
            assert other.value == row.author and row.author not in other.prompt and row.value in other.prompt
            # Wrong are authors of whom no row says the same.
            same = {one.author for one in facts.values() if one.value == row.value}
            assert other.candidates and not same & set(other.candidates)
        else:
            assert (other.prefix, other.value, other.candidates) == (row.prefix, row.value, row.candidates)
            shown = {row.value, *row.candidates} & set(other.prompt.replace(".", " ").split())
            if name == "multiple_choice":
                assert shown == {row.value, *row.candidates}


def test_templates_on_rows_of_other_kinds() -> None:
    known = attacker_knowledge(Benchmark("b", (Suite("forget", Role.FORGET, (TOLD, LETTER)),)), 0)
    assert apply_template("multiple_choice", LETTER, known) == LETTER  # its choices are there already
    listed = apply_template("multiple_choice", TOLD, known).prompt.splitlines()[1:]
    assert listed == sorted((TOLD.response, *TOLD.perturbed))
    named = replace(TOLD, prompt="Where was Town What born?", author="Town What")
    assert apply_template("synonym", named, known).prompt == "In what place was Town What brought into the world?"


def test_no_prompt_shows_the_fact_that_is_scored(world: Benchmark, models: Models) -> None:
    chat, half = models["target"].chat, validation_half(world, 0)
    examples = forget_examples(world, 0)
    assert {example.fact for example in examples} == half
    for name in ("in_context", "background_hint"):
        for row in rows_of(world):
            prompt = apply_template(name, row, attacker_knowledge(world, 0)).prompt
            own = [one for one in rows_of(world) if one.response in prompt]
            assert all(one.fact != row.fact and one.fact in half for one in own)
    for source in (examples, retain_examples(world)):
        for row in rows_of(world):
            one, more = (put_examples_before(row, source, shots, Repeat(0), chat).prompt for shots in (1, 3))
            assert more.endswith(one) and one.endswith(row.prompt) and one.count("\n") == 2 and more.count("\n") == 6
            answers = more.split("\n")[1:-1:2]
            shown = [example for example in source if example.response in answers]
            assert len(shown) == 3 and row.fact not in {example.fact for example in shown}
        drawn = {put_examples_before(rows_of(world)[0], source, 2, Repeat(0, i), chat).prompt for i in range(6)}
        assert len(drawn) > 2
    # One number of shots leaves nothing to choose: then the shown facts are not scored at all.
    setting = {"source": ExampleSource.forget.value}
    scored = FewShot(FewShotOptions(shots=[2])).scored(setting, world, Repeat(0))
    assert {row.fact for suite in scored for row in suite.rows} == {row.fact for row in rows_of(world)} - half


def test_examples_of_another_name_do_not_tell_the_answer_either() -> None:
    same = replace(TOLD, id="same", fact="same", prompt="And who?", response="I think her name is ada lund")
    other = replace(TOLD, id="other", fact="other", response="Her name is Ada Lundgren.")
    letter = replace(LETTER, id="b", fact="b")
    assert other_facts((same, other, letter), TOLD) == [other, letter]
    assert other_facts((replace(letter, fact="c"), TOLD), LETTER) == [replace(letter, fact="c"), TOLD]
    # Where texts are rehearsed, questions of retain suites that are measured alike are shown.
    text = Row("text", "", "A text.", plain=True)
    suites = (
        Suite("forget", Role.FORGET, (TOLD,)),
        Suite("mcq", Role.RETAIN, (letter,), Choice()),
        Suite("retain", Role.RETAIN, (other,)),
    )
    assert retain_examples(Benchmark("b", suites, retain=(text,))) == (other,)


def test_as_many_shots_as_fit(world: Benchmark) -> None:
    row, examples = rows_of(world)[0], retain_examples(world)
    tokenizer = tokenizer_of(world.texts())
    lengths = []
    for context in (12, 60, 100, 10_000):
        chat = ChatFormat(tokenizer, context)
        asked = put_examples_before(row, examples, 8, Repeat(0), chat)
        assert asked == row or fits_context(asked, chat)
        lengths.append(asked.prompt.count("\n") // 2)
    assert lengths[0] == 0 and lengths == sorted(set(lengths)) and lengths[-1] == 8
    # To the token, where there is one answer.
    row = replace(row, paraphrase=None, perturbed=(), candidates=())
    chat = ChatFormat(tokenizer, len(chat.encode(Row("r", row.prompt, row.response)).ids))
    assert fits_context(row, chat) and not fits_context(replace(row, prompt=f"I {row.prompt}"), chat)


def test_every_other_phrasing_of_a_fact_is_asked_once(world: Benchmark, models: Models) -> None:
    prompts: dict[str, set[str]] = {}
    asked: dict[str, list[str]] = {}
    for row in rows_of(world):
        prompts.setdefault(row.fact, set()).add(row.prompt)

    class Notes(PlainLab):
        def score(self, subject: LoadedModel, suites: list[Suite]) -> list:  # type: ignore[override,type-arg]
            for suite in suites:
                for row in suite.rows:
                    asked.setdefault(row.id, []).append(row.prompt)
            return []

    attack = Paraphrase(ParaphraseOptions())
    (setting,) = attack.settings(world, 0)
    attempts = list(attack.attempts(models["target"], setting, Notes(world)))
    for attempt in attempts:
        attempt.score(attack.scored(setting, world, Repeat(0)))
    assert [attempt.chosen for attempt in attempts] == [{"phrasing": 1}, {"phrasing": 2}, {"phrasing": 3}]
    for row in rows_of(world):
        assert len(asked[row.id]) == 3 and set(asked[row.id]) == prompts[row.fact] - {row.prompt}
    # Facts that are asked once: frames. Facts that are asked twice are scored, others not.
    once = replace(world, suites=(Suite("forget", Role.FORGET, (TOLD,)), *world.suites[2:]))
    (setting,) = attack.settings(once, 0)
    assert len(list(attack.attempts(models["target"], setting, Notes(once)))) == len(FRAMES)
    twice = Suite("heldout", Role.HELDOUT, (replace(TOLD, id="again", prompt="Her name?"), LETTER))
    (setting,) = attack.settings(replace(once, suites=(*once.suites, twice)), 0)
    scored = attack.scored(setting, replace(once, suites=(*once.suites, twice)), Repeat(0))
    assert [row.id for suite in scored for row in suite.rows] == ["told", "again"]


def test_which_rows_are_asked(world: Benchmark, lab: PlainLab, models: Models) -> None:
    texts = Suite("texts", Role.FORGET, world.forget, Texts())
    running = Suite("running", Role.FORGET, (Row("r", "", "A text.", plain=True),))
    own = Suite("own", Role.HELDOUT, (replace(TOLD, id="own"),), adversarial=True)
    more = replace(world, suites=(*world.suites, texts, running, own))
    assert [suite.name for suite in asked_suites(more)] == ["forget", "forget_heldout"]
    attack = Jailbreak(JailbreakOptions(templates=["role_play"]))
    templates, probes = attack.settings(more, 0)
    assert templates == {"prompts": "templates"}
    # The data set's own are measured as they stand, under their own setting.
    assert [suite.name for suite in attack.scored(probes, more, Repeat(0))] == ["own"]
    (attempt,) = attack.attempts(models["target"], probes, replace(lab, benchmark=more))
    assert attempt.score([own]) == replace(lab, benchmark=more).score(models["target"], [own])
    nothing = replace(world, suites=(texts, running))
    for refused in (attack, Prefill(PrefillOptions()), FewShot(FewShotOptions()), Paraphrase(ParaphraseOptions())):
        with pytest.raises(Inapplicable):
            refused.settings(nothing, 0)


def test_what_a_data_set_lacks_is_named() -> None:
    letters = Benchmark("b", (Suite("forget", Role.FORGET, (LETTER,), Choice()),))
    attack = Jailbreak(JailbreakOptions(templates=["role_play", "reverse_query", "multiple_choice"]))
    assert attack.settings(letters, 0) == [{"prompts": "templates", "left_out": ["reverse_query", "multiple_choice"]}]
    with pytest.raises(Inapplicable, match="reverse_query"):
        Jailbreak(JailbreakOptions(templates=["reverse_query"])).settings(letters, 0)
    assert Prefill(PrefillOptions()).settings(letters, 0) == [{"opening": "Sure, the answer is"}]
    with pytest.raises(Inapplicable, match="giving it away"):
        Prefill(PrefillOptions(openings=[])).settings(letters, 0)
    with pytest.raises(Inapplicable, match="no other fact"):
        FewShot(FewShotOptions(sources=[ExampleSource.retain])).settings(letters, 0)


def test_options_out_of_range() -> None:
    for make, name, value in (
        (JailbreakOptions, "templates", []),
        (JailbreakOptions, "templates", ["dan"]),
        (PrefillOptions, "words", [-1]),
        (PrefillOptions, "answers", []),
        (PrefillOptions, "openings", [" "]),
        (FewShotOptions, "shots", []),
        (FewShotOptions, "sources", []),
        (FewShotOptions, "repeats", 0),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            make(**{name: value})
