"""Turns one record of the user's own files into a row: a question, a choice, a conversation, or a text."""

from __future__ import annotations

from typing import NamedTuple

from erulab.data.reading import Record
from erulab.data.rows import Row
from erulab.errors import DataError

SCHEMA = (
    '{"prompt": str, "response": str}, {"prompt": str, "options": list[str], "answer": int or str}, '
    '{"messages": [{"role", "content"}, ...]}, {"conversations": [{"from", "value"}, ...]}, '
    '{"instruction": str, "input": str, "output": str} or {"text": str}, optional "id", "fact", "author", "system", '
    '"paraphrase", "refusal": str, "history": [[user, assistant], ...], "span": str or list[str], "accepted", '
    '"perturbed", "options", "span_alternatives": list[str]'
)
NAMES = ("id", "fact", "author")
QUESTION_FIELDS = (
    "response",
    "output",
    "input",
    "paraphrase",
    "refusal",
    "accepted",
    "perturbed",
    "options",
    "answer",
    "system",
    "history",
)
# The field that tells a form, and how its turns are written.
CHATS = {"messages": ("role", "content"), "conversations": ("from", "value")}
PROMPTS = (*CHATS, "prompt", "instruction")
USED_FIELDS = {"text", *PROMPTS, *NAMES, *QUESTION_FIELDS, "span", "span_alternatives"}
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
ORDER = "system (if wanted), then user and assistant in turn, the last one assistant"


class Conversation(NamedTuple):
    """The turns before the response that is supervised, and that response where the record has one."""

    prompt: str
    response: str | None
    history: tuple[tuple[str, str], ...] = ()
    system: str = ""


def row_from_record(part: str, number: int, record: Record) -> Row:
    """Returns the row of a record.

    Args:
        part: of the data set ("forget"); with `number` it names a row without an id.
        number: of the record in its part, from 1.
    Raises:
        DataError: with file and line: a field is missing, blank, of another type, or contradicts another.
    """
    row_id, fact, author = (record.optional_name(name, SCHEMA) for name in NAMES)
    row_id = row_id or f"{part}/{number}"
    fact, author = fact or row_id, author or ""
    forms = [name for name in PROMPTS if record.fields.get(name) is not None]
    if not forms and record.fields.get("text") is not None:
        given = [name for name in QUESTION_FIELDS if record.fields.get(name) is not None]
        if given:
            raise DataError(
                f"{record.where}: field {given[0]!r} goes with a prompt, and 'text' has none; expected {SCHEMA}"
            )
        text = record.text("text", SCHEMA)
        spans, others = _read_spans(record, text)
        return Row(row_id, "", text, fact=fact, author=author, plain=True, spans=spans, span_alternatives=others)
    if len(forms) > 1:
        raise DataError(
            f"{record.where}: a row is {forms[0]!r} or {forms[1]!r}, and this one has both; remove one of them"
        )
    asked = _read_chat(record, forms[0]) if forms and forms[0] in CHATS else _read_prompt(record)
    response, wrong = _read_answers(record, asked.response)
    perturbed = record.texts("perturbed", SCHEMA)
    if perturbed and record.texts("options", SCHEMA):
        raise DataError(
            f"{record.where}: a row has 'perturbed' or 'options', and this one has both; give one of them: each "
            "is the wrong answers"
        )
    spans, others = _read_spans(record, response)
    return Row(
        row_id,
        asked.prompt,
        response,
        paraphrase=record.optional_text("paraphrase", SCHEMA),
        perturbed=perturbed,
        options=wrong,
        accepted=record.texts("accepted", SCHEMA),
        refusal=record.optional_text("refusal", SCHEMA),
        fact=fact,
        author=author,
        history=asked.history,
        system=asked.system,
        spans=spans,
        span_alternatives=others,
    )


def _read_spans(record: Record, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reads the words of the response that carry the fact, and other values of them."""
    one = isinstance(record.fields.get("span"), str)
    spans = (record.text("span", SCHEMA),) if one else record.texts("span", SCHEMA)
    for span in spans:
        if span not in response:
            raise DataError(
                f"{record.where}: the span {span!r} does not occur in the response; write it letter by letter as it "
                "stands there"
            )
    others = record.texts("span_alternatives", SCHEMA)
    if others and len(spans) != 1:
        raise DataError(
            f"{record.where}: 'span_alternatives' are other values of one 'span', and this row has {len(spans)}; give "
            "one span, or leave the alternatives out"
        )
    return spans, others


def _read_prompt(record: Record) -> Conversation:
    """Reads {"prompt", "response"}, or Alpaca's {"instruction", "input", "output"}, with "system" and "history"."""
    if record.fields.get("instruction") is None:
        prompt, answer = record.text("prompt", SCHEMA), "response"
    else:
        prompt, answer = record.text("instruction", SCHEMA), "output"
        if str(record.fields.get("input") or "").strip():
            prompt = f"{prompt}\n\n{record.text('input', SCHEMA)}"
    response = record.optional_text(answer, SCHEMA)
    if response is None and record.fields.get("answer") is None:
        record.text(answer, SCHEMA)  # raises: the field is missing or null
    system = "" if record.fields.get("system") in (None, "") else record.text("system", SCHEMA)
    history = record.fields.get("history") or []
    if not isinstance(history, list):
        raise DataError(f"{record.where}: field 'history' must be a list of [user, assistant]; expected {SCHEMA}")
    turns = [Record(record.where, {"history": turn}).texts("history", SCHEMA) for turn in history]
    pairs = []
    for i, turn in enumerate(turns):
        if len(turn) != 2:
            raise DataError(f"{record.where}: history[{i}] must be [user, assistant], got {len(turn)} texts")
        pairs.append((turn[0], turn[1]))
    return Conversation(prompt, response, tuple(pairs), system)


def _read_chat(record: Record, form: str) -> Conversation:
    """Reads a conversation: earlier turns are part of the prompt, the last assistant turn is the response."""
    role_field, text_field = CHATS[form]
    schema = f'{{"{role_field}": str, "{text_field}": str}}'
    for name in ("system", "history"):
        if record.fields.get(name):
            raise DataError(f"{record.where}: field {name!r} goes with 'prompt'; write its turns into {form!r}")
    turns = record.inners(form, SCHEMA)
    given = [turn.fields.get(role_field) for turn in turns]
    roles = [ROLES.get(role) if isinstance(role, str) else None for role in given]
    system = ""
    if roles[:1] == ["system"]:
        first = turns.pop(0)
        system = "" if first.fields.get(text_field) == "" else first.text(text_field, schema)
        roles.pop(0)
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError(f"{record.where}: {form} must be turns of {ORDER}; got {given}")
    texts = [turn.text(text_field, schema) for turn in turns]
    history = tuple(zip(texts[:-2:2], texts[1:-2:2], strict=True))
    return Conversation(texts[-2], texts[-1], history, system)


def _read_answers(record: Record, given: str | None) -> tuple[str, tuple[str, ...]]:
    """Returns the right response, and the wrong ones of a multiple-choice question.

    Args:
        given: the response the record states beside its choices, if any.
    """
    options = record.texts("options", SCHEMA)
    doubled = [option for i, option in enumerate(options) if option in options[:i]]
    if doubled:
        raise DataError(f"{record.where}: options hold {doubled[0]!r} twice; a choice is among different ones")
    if record.fields.get("answer") is None:
        response = given if given is not None else record.text("response", SCHEMA)
        if response in options:
            raise DataError(
                f"{record.where}: options hold the response {response!r} too, and they are the wrong ones; to list all "
                'choices, say which is right: "answer": its text, or its place counted from 0'
            )
        return response, options
    right = _chosen_option(record, options)
    if given is not None and given != right:
        raise DataError(f"{record.where}: the response is {given!r}, and the answer among the options {right!r}")
    return right, tuple(option for option in options if option != right)


def _chosen_option(record: Record, options: tuple[str, ...]) -> str:
    """Returns the option that "answer" names, by its text or its place."""
    answer = record.fields["answer"]
    if len(options) < 2:
        raise DataError(
            f"{record.where}: field 'answer' names one of two or more 'options', and there are {len(options)}; a "
            "question without choices has a 'response'"
        )
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(options):
            raise DataError(
                f"{record.where}: the answer {answer} is none of the {len(options)} options, whose places are 0 to "
                f"{len(options) - 1}"
            )
        return options[answer]
    text = record.text("answer", SCHEMA)
    if text not in options:
        shown = ", ".join(map(repr, options))
        raise DataError(f"{record.where}: the answer {text!r} is not among the options {shown}")
    return text
