"""The chat format of a model: prompt and response as token ids, the same ids everywhere in erulab."""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from erulab.data.rows import Row
from erulab.errors import DataError
from erulab.tokens.batch import Encoded
from erulab.tokens.rendering import ChatTemplate, Conversation
from erulab.tokens.templates import NO_OVERRIDES, TEMPLATES, PromptOverrides

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

CACHED_PROMPTS = 4096  # prompts whose ids are kept, because evaluation scores each prompt with many answers


class ChatFormat:
    """Turns rows into ids by a chat template: the tokenizer's own, or the one of `overrides`.

    Prompt ids are what the template gives for the conversation and the opening of the assistant's turn; the response is
    tokenised by itself and closed by the end-of-turn token, so that neither's ids depend on the other. Construction
    checks on a probe conversation that this gives the template's own ids. What the template adds after the
    end-of-turn token (SmolLM2: a newline) is dropped.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, context: int, overrides: PromptOverrides = NO_OVERRIDES
    ) -> None:
        """
        Args:
            tokenizer: is given the template of `overrides`, and saves it from now on.
            context: tokens the model can read.
        Raises:
            DataError: the tokenizer cannot be used (no offsets, no end-of-text token), or the template (it cannot be
                split, is no Jinja, or takes no system turn).
        """
        from transformers import PreTrainedTokenizerFast  # plugin files import this module where torch must not be

        name = tokenizer.name_or_path or type(tokenizer).__name__
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise DataError(f"tokenizer {name} is no fast tokenizer; save it once with AutoTokenizer(use_fast=True)")
        if tokenizer.eos_token_id is None:
            raise DataError(f"tokenizer {name} has no end-of-text token; set eos_token in its tokenizer_config.json")
        if overrides.template is not None:
            tokenizer.chat_template = overrides.template
        if tokenizer.chat_template is None:
            log.info("tokenizer %s has no chat template: rows are 'prompt response' and end of text", name)
            tokenizer.chat_template = TEMPLATES["plain"]
        if tokenizer.pad_token_id is None:
            log.info("tokenizer %s has no pad token: end of text pads (masks come from lengths)", name)
        self._tokenizer = tokenizer
        self._context, self._system = context, overrides.system
        # A copy of its own: padding or truncation that others set on the tokenizer must not reach these ids.
        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.no_padding()
        self._backend.no_truncation()
        self._add_bos = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        self._bos: list[int] = [tokenizer.bos_token_id] if self._add_bos else []
        self._prompt_ids = functools.lru_cache(CACHED_PROMPTS)(self._encode_opening)
        self._template = ChatTemplate(tokenizer, name, self._ids, self._add_bos, self._system)
        if self.note_on_end:
            log.warning("tokenizer %s: %s", name, self.note_on_end)
        self._anchored = len(self._ids(self._template.anchor))
        self.pad_id: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self._template.end[-1], tokenizer.eos_token_id)))

    def encode(
        self,
        row: Row,
        response: str | None = None,
        span: tuple[int, int] | None = None,
        max_length: int | None = None,
    ) -> Encoded:
        """Encodes a row's templated prompt, a response and the end-of-turn token.

        Running text (`row.plain`) is encoded as prompt and response together, with nothing after them.

        Args:
            response: in place of the row's own.
            span: characters of the response; only tokens that overlap them are supervised. None: the whole response
                with its end-of-turn token.
            max_length: tokens of prompt and response together; a longer response is cut at its end, and then has no
                end-of-turn token. The model's context is a limit in any case.
        Raises:
            DataError: names the row, when no supervised token is left.
        """
        response = row.response if response is None else response
        limit = self.limit(max_length)
        start, ids, offsets, shift = self._encode_with_offsets(row, response)
        if start >= limit:
            raise self.no_room_error(row, start, limit)
        ids = ids[:limit]
        if len(ids) <= max(start, 1):
            raise DataError(
                f"row {row.id}: a text of a single token leaves nothing to predict (the first token has nothing before "
                "it); give a longer one"
            )
        if span is None:
            return Encoded(row.id, tuple(ids), start, len(ids))
        # Position of the offsets' first token: behind the first id of a text, which has no prompt.
        base = start or len(self._bos)
        first, last = (position + shift for position in span)
        inside = [i for i, (left, right) in enumerate(offsets) if left < last and right > first]
        end = min(base + inside[-1] + 1, len(ids)) if inside else 0
        if not inside or base + inside[0] >= end:
            raise DataError(
                f"row {row.id}: characters {span[0]}-{span[1]} of the response are no token within {limit} tokens"
            )
        return Encoded(row.id, tuple(ids), base + inside[0], end)

    def span_positions(
        self, row: Row, response: str, spans: Sequence[tuple[int, int]], max_length: int | None = None
    ) -> tuple[int, ...]:
        """Returns the indices of the ids that `encode` gives for some characters of a response.

        A token that overlaps a span is one of them, the end-of-turn token never is.

        Args:
            spans: first character and the one behind the last of each.
            max_length: as in `encode`; tokens beyond it are left out.
        """
        start, _, offsets, shift = self._encode_with_offsets(row, response)
        limit = self.limit(max_length)
        return tuple(
            position
            for position, (left, right) in enumerate(offsets, start or len(self._bos))
            if 0 < position < limit and any(left < last + shift and right > first + shift for first, last in spans)
        )

    def encode_batch(self, rows: Sequence[Row], responses: Sequence[str]) -> list[tuple[list[int], int]]:
        """Encodes many rows together, which takes half the time of one after another.

        Args:
            responses: one per row.
        Returns:
            For each row the ids that `encode` cuts at a limit, and where the response begins.
        """
        made: dict[int, tuple[list[int], int]] = {}
        chats = []
        for i, row in enumerate(rows):
            if row.plain or row.answer_prefix:
                start, ids, *_ = self._encode_running(row, responses[i])
                made[i] = ids, start
            else:
                chats.append(i)
        openings = self._render_openings([rows[i] for i in chats])
        before = self._template.anchor + self._template.response_prefix
        answers = [before + responses[i] for i in chats]
        found = self._backend.encode_batch_fast([*openings, *answers], add_special_tokens=False)
        for i, opening, answer in zip(chats, found[: len(chats)], found[len(chats) :], strict=True):
            made[i] = [*opening.ids, *answer.ids[self._anchored :], *self._template.end], len(opening)
        return [made[i] for i in range(len(rows))]

    def encode_prompt(self, row: Row) -> list[int]:
        """Encodes a row up to where the response begins: what generation continues."""
        if row.plain:
            return self.encode_text(row.prompt)
        return list(self._prompt_ids(self._conversation(row), row.answer_prefix))

    def encode_text(self, text: str) -> list[int]:
        """Encodes running text, with the token that opens every text where the tokenizer has one."""
        return [*self._bos, *self._ids(text)]

    def encode_by_template(self, row: Row, response: str) -> tuple[list[int], list[int]]:
        """Encodes with the template alone: the prompt with its opening for generation, and the whole conversation.

        The conversation's ids need not begin with the prompt's, and no ids after the end of turn are dropped.
        """
        conversation = self._conversation(row)
        (opening,) = self._template.render([conversation], generation_prompt=True)
        (whole,) = self._template.render([(*conversation, ("assistant", response))], generation_prompt=False)
        return self._ids(opening), self._ids(whole)

    def no_room_error(self, row: Row, start: int, limit: int) -> DataError:
        """Returns the error for a prompt that leaves no room for a response.

        Args:
            row: names the row in the message.
            start: tokens of the prompt.
            limit: tokens that the row may have.
        """
        longer = f", raise dataset.max_length (the model reads {self._context})" if limit < self._context else ""
        return DataError(
            f"row {row.id}: the prompt takes {start} of {limit} tokens and leaves none for the response; shorten it"
            f"{longer}, or type dataset.truncate=left or drop (of a benchmark beside it: benchmark.<name>.truncate)"
        )

    def limit(self, max_length: int | None) -> int:
        """Returns the tokens that a row may have: `max_length`, or what the model can read if that is less."""
        return min(max_length or self._context, self._context)

    @property
    def note_on_end(self) -> str:
        """What a reader must know of the end of turn; "" if the template's own closes each response."""
        end = self._template.unmarked_end
        if not end:
            return ""
        return (
            f"the chat template ends a turn with {end[:40]!r}, which is no token of the tokenizer; responses are "
            f"closed by {self._tokenizer.eos_token} in its place"
        )

    @property
    def unknown_id(self) -> int | None:
        """The id of words that the tokenizer does not know, if it has such an id."""
        unknown = self._tokenizer.unk_token_id
        # Byte-level tokenizers (GPT-2, Phi) know every word, and name the end of text where one has to be named.
        return None if unknown is None or unknown in (*self._bos, *self.stop_ids) else int(unknown)

    @property
    def response_prefix(self) -> str:
        """Text the template writes before the response, as part of the response's tokens ("▁" before the first word).

        An `answer_prefix` that stands for the beginning of the response must begin with it.
        """
        return self._template.response_prefix

    def closing(self, encoded: Encoded) -> int:
        """Counts a conversation's end-of-turn tokens at its end: all of them, or none where it was cut."""
        end = self._template.end
        return len(end) if encoded.ids[-len(end) :] == end else 0

    def cut(self, text: str, tokens: int) -> str:
        """Cuts a text to its first tokens; a token that opens every text is one of them.

        Source: muse_bench cuts its references in this way.
        """
        return self.decode(self.encode_text(text)[:tokens])

    def character_spans(self, text: str) -> list[tuple[int, int]]:
        """Returns for each token of a running text its first character and the one behind its last."""
        return list(self._backend.encode(text, add_special_tokens=False).offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, without special tokens."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).removeprefix(self._template.response_prefix)

    def identity(self) -> dict[str, Any]:
        """Returns hashes of everything the ids depend on: tokenizer, template, end of turn, context."""
        return {
            "tokenizer": hashlib.sha256(self._backend.to_str().encode()).hexdigest()[:16],
            "template": self._template.hash(),
            "end": self._template.end,
            "stop": self.stop_ids,
            "context": self._context,
            **({} if self._system is None else {"system": self._system}),
        }

    def _encode_with_offsets(self, row: Row, response: str) -> tuple[int, list[int], list[tuple[int, int]], int]:
        """Encodes prompt and response; returns what `_encode_running` does."""
        if row.plain or row.answer_prefix:
            return self._encode_running(row, response)
        opening = self.encode_prompt(row)
        before = self._template.anchor + self._template.response_prefix
        answer = self._backend.encode(before + response, add_special_tokens=False)
        ids = [*opening, *answer.ids[self._anchored :], *self._template.end]
        return len(opening), ids, list(answer.offsets[self._anchored :]), len(before)

    def _encode_running(self, row: Row, response: str) -> tuple[int, list[int], list[tuple[int, int]], int]:
        """Encodes prompt and response as one text.

        The response begins with the first id that is not the prompt's own: a token that both share is the response's
        (" In", where a prompt ends in a space). A text without a prompt begins at 0: the token that opens all texts is
        no prompt.

        Returns:
            Index of the response's first id; all ids; the characters each token behind the prompt stands for; the
            character where the response begins.
        """
        opening = self.encode_prompt(row)
        # A template writes the begin-of-text token itself.
        bos, before = (self._bos, row.prompt) if row.plain else ([], self._render_openings([row])[0])
        whole = self._backend.encode(before + response, add_special_tokens=False)
        ids = [*bos, *whole.ids]
        start = next((i for i, (a, b) in enumerate(zip(opening, ids, strict=False)) if a != b), len(opening))
        offsets = list(whole.offsets[start - len(bos) :])
        return start if row.prompt or row.answer_prefix else 0, ids, offsets, len(before)

    def _conversation(self, row: Row) -> Conversation:
        """Returns the turns that a response continues."""
        system = row.system or self._system
        opening = () if system is None else (("system", system),)
        history = ((("user", user), ("assistant", reply)) for user, reply in row.history)
        return (*opening, *(turn for pair in history for turn in pair), ("user", row.prompt))

    def _render_openings(self, rows: Sequence[Row]) -> list[str]:
        """Renders each row's conversation up to where the response begins."""
        conversations = [self._conversation(row) for row in rows]
        return [
            text + row.answer_prefix
            for row, text in zip(rows, self._template.render_openings(conversations), strict=True)
        ]

    def _encode_opening(self, conversation: Conversation, answer_prefix: str) -> tuple[int, ...]:
        (text,) = self._template.render_openings([conversation])
        return tuple(self._ids(text + answer_prefix))

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)
