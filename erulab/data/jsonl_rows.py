"""From one object of the user's own files to a row: a question, a multiple-choice question, a chat, or a text."""

from __future__ import annotations

from erulab.data.reading import Record
from erulab.data.rows import Row
from erulab.errors import DataError

SCHEMA = (
    '{"prompt": str, "response": str}, {"prompt": str, "options": list[str], "answer": int or str}, '
    '{"messages": [user, assistant]} or {"text": str}, optional "id", "fact", "author", "paraphrase", "refusal": str, '
    '"accepted", "perturbed", "options": list[str]'
)
NAMES = ("id", "fact", "author")
OF_QUESTIONS = ("response", "paraphrase", "refusal", "accepted", "perturbed", "options", "answer")
USED = {"prompt", "messages", "text", *NAMES, *OF_QUESTIONS}


def row_of(part: str, number: int, record: Record) -> Row:
    """The row of an object, the `number`-th of a part ("forget").

    Raises:
        DataError: with file and line: a field is missing, blank, of another type, or contradicts another.
    """
    row_id, fact, author = (record.optional_text(name, SCHEMA) for name in NAMES)
    row_id = row_id or f"{part}/{number}"
    fact, author = fact or row_id, author or ""
    if not {"prompt", "messages"} & record.fields.keys() and "text" in record.fields:
        given = [name for name in OF_QUESTIONS if record.fields.get(name) is not None]
        if given:
            raise DataError(
                f"{record.where}: field {given[0]!r} goes with a prompt, and 'text' has none; expected {SCHEMA}"
            )
        return Row(row_id, "", record.text("text", SCHEMA), fact=fact, author=author, plain=True)
    prompt, response, wrong = _question(record)
    return Row(
        row_id,
        prompt,
        response,
        paraphrase=record.optional_text("paraphrase", SCHEMA),
        perturbed=_perturbed(record),
        options=wrong,
        accepted=record.texts("accepted", SCHEMA),
        refusal=record.optional_text("refusal", SCHEMA),
        fact=fact,
        author=author,
    )


def _perturbed(record: Record) -> tuple[str, ...]:
    perturbed = record.texts("perturbed", SCHEMA)
    if perturbed and record.texts("options", SCHEMA):
        raise DataError(
            f"{record.where}: a row has 'perturbed' or 'options', and this one has both; give one of them: each "
            "is the wrong answers"
        )
    return perturbed


def _question(record: Record) -> tuple[str, str, tuple[str, ...]]:
    """Prompt, right response, and the wrong ones of a multiple-choice question."""
    options = record.texts("options", SCHEMA)
    doubled = [option for i, option in enumerate(options) if option in options[:i]]
    if doubled:
        raise DataError(f"{record.where}: options hold {doubled[0]!r} twice; a choice is among different ones")
    chosen = None if record.fields.get("answer") is None else _chosen(record, options)
    if "messages" in record.fields:
        prompt, response = _messages(record)
    else:
        prompt = record.text("prompt", SCHEMA)
        given = record.optional_text("response", SCHEMA)
        response = record.text("response", SCHEMA) if chosen is None else given or chosen
    if chosen is None:
        if response in options:
            raise DataError(
                f"{record.where}: options hold the response {response!r} too, and they are the wrong ones; to list all "
                'choices, say which is right: "answer": its text, or its place counted from 0'
            )
        return prompt, response, options
    if response != chosen:
        raise DataError(f"{record.where}: the response is {response!r}, and the answer among the options {chosen!r}")
    return prompt, response, tuple(option for option in options if option != chosen)


def _chosen(record: Record, options: tuple[str, ...]) -> str:
    """The one of all choices that "answer" names, by its text or its place."""
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


def _messages(record: Record) -> tuple[str, str]:
    """Prompt and response of a conversation of one user and one assistant turn."""
    if "prompt" in record.fields:
        raise DataError(f"{record.where}: a row is 'messages' or 'prompt', and this one has both; remove one of them")
    turns = record.inners("messages", SCHEMA)
    roles = [turn.fields.get("role") for turn in turns]
    if roles != ["user", "assistant"]:
        raise DataError(
            f"{record.where}: messages must be one user and one assistant turn, got {roles}: the system turn is the "
            "chat template's own, and of several turns each row asks one; write what came before into its prompt"
        )
    turn_schema = '{"role": str, "content": str}'
    return turns[0].text("content", turn_schema), turns[1].text("content", turn_schema)
