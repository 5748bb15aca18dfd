"""The chat format of a model: prompt and response as token ids, the same ids everywhere in erulab."""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from erulab.errors import DataError
from erulab.tokens.batch import Encoded
from erulab.tokens.templates import OWN, TEMPLATES, Frame

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# Llama 3's template writes today's date into the system turn unless told one: ids would differ from day to day.
# This is the date open-unlearning's TOFU checkpoints were trained with.
DATE = "10 Apr 2025"
PROMPTS = 4096  # whose ids are kept: evaluation asks each with many answers
PROBE_PROMPT, PROBE_RESPONSE = "Where was Ada born?", "Ada was born in Brenwick, by the sea."
# SentencePiece tokenizers put a space mark before every text. Behind this they put none, and it merges with nothing.
ANCHOR = "\n"


class ChatFormat:
    """Turns (prompt, response) into ids by a chat template: the tokenizer's own, or the one of `frame`.

    Prompt ids are what the template gives for the user's turn and the opening of the assistant's; the response is
    tokenised by itself and closed by the end-of-turn token, so that neither's ids depend on the other. Construction
    checks on a probe conversation that this gives the template's own ids. What the template adds after the
    end-of-turn token (SmolLM2: a newline) is dropped.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int, frame: Frame = OWN) -> None:
        """
        Args:
            tokenizer: is given the frame's template, and saves it from now on.
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
        if frame.template is not None:
            tokenizer.chat_template = frame.template
        if tokenizer.chat_template is None:
            log.info("tokenizer %s has no chat template: rows are 'prompt response' and end of text", name)
            tokenizer.chat_template = TEMPLATES["plain"]
        if tokenizer.pad_token_id is None:
            log.info("tokenizer %s has no pad token: end of text pads (masks come from lengths)", name)
        self._tokenizer = tokenizer
        self._context, self._system = context, frame.system
        # A copy of its own: padding or truncation that others set on the tokenizer must not reach these ids.
        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.no_padding()
        self._backend.no_truncation()
        self._add_bos = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        self._bos: list[int] = [tokenizer.bos_token_id] if self._add_bos else []
        self._prompt_ids = functools.lru_cache(PROMPTS)(self._encode_prompt)
        self._generation_prompt, self._opening, self._anchor, self._glue, self._end = self._split(name)
        self._anchored = len(self._ids(self._anchor))
        self.pad_id: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self._end[-1], tokenizer.eos_token_id)))

    def encode(
        self,
        row_id: str,
        prompt: str,
        response: str,
        span: tuple[int, int] | None = None,
        max_length: int | None = None,
        *,
        plain: bool = False,
        lead: str = "",
    ) -> Encoded:
        """Ids of the templated prompt, the response and the end-of-turn token.

        Args:
            plain: running text in place of a conversation: the ids of prompt and response together, with nothing
                after them. Where the prompt's own ids end, the response begins.
            lead: how the assistant's turn begins; the response goes on there as running text.
            span: characters of the response; only tokens that overlap them are supervised. None: the whole response
                with its end-of-turn token.
            max_length: tokens of prompt and response together; a longer response is cut at its end, and then has no
                end-of-turn token. The model's context is a limit in any case.
        Raises:
            DataError: names the row, when no supervised token is left.
        """
        limit = self.limit(max_length)
        if plain or lead:
            start, ids, offsets, shift = self._running(prompt, response, lead)
        else:
            opening = self.encode_prompt(prompt)
            before, skip = self._anchor + self._glue, self._anchored
            answer = self._backend.encode(before + response, add_special_tokens=False)
            start, ids = len(opening), [*opening, *answer.ids[skip:], *self._end]
            offsets, shift = answer.offsets[skip:], len(before)
        if start >= limit:
            raise DataError(
                f"row {row_id}: the prompt takes {start} of {limit} tokens and leaves none for the response; shorten it"
                f"{self._raise(limit)}, or type dataset.truncate=left or drop (of a benchmark beside it: "
                "benchmark.<name>.truncate)"
            )
        ids = ids[:limit]
        if len(ids) <= max(start, 1):
            raise DataError(
                f"row {row_id}: a text of a single token leaves nothing to predict (the first token has nothing before "
                "it); give a longer one"
            )
        if span is None:
            return Encoded(row_id, tuple(ids), start, len(ids))
        # Where the offsets' first token stands: behind the first id of a text, which has no prompt.
        base = start or len(self._bos)
        first, last = (position + shift for position in span)
        inside = [i for i, (left, right) in enumerate(offsets) if left < last and right > first]
        end = min(base + inside[-1] + 1, len(ids)) if inside else 0
        if not inside or base + inside[0] >= end:
            raise DataError(
                f"row {row_id}: characters {span[0]}-{span[1]} of the response are no token within {limit} tokens"
            )
        return Encoded(row_id, tuple(ids), base + inside[0], end)

    def encode_whole(
        self, texts: Sequence[tuple[str, str]], *, plain: bool = False, lead: str = ""
    ) -> list[tuple[list[int], int]]:
        """For each (prompt, response): the ids that `encode` cuts at a limit, and where the response begins.

        Many at once take half the time of one after another.
        """
        if plain or lead:
            return [(ids, start) for start, ids, *_ in (self._running(*text, lead) for text in texts)]
        users = [self._user(prompt) for prompt, _ in texts]
        openings = [text + self._opening for text in self._render(users, self._generation_prompt)]
        responses = [self._anchor + self._glue + response for _, response in texts]
        found = self._backend.encode_batch_fast([*openings, *responses], add_special_tokens=False)
        return [
            ([*opening.ids, *response.ids[self._anchored :], *self._end], len(opening))
            for opening, response in zip(found[: len(texts)], found[len(texts) :], strict=True)
        ]

    def _raise(self, limit: int) -> str:
        """What a message says where the model could read more."""
        return f", raise dataset.max_length (the model reads {self._context})" if limit < self._context else ""

    def limit(self, max_length: int | None) -> int:
        """Tokens of a row: `max_length`, or what the model can read."""
        return min(max_length or self._context, self._context)

    @property
    def unknown_id(self) -> int | None:
        """The id of words that the tokenizer does not know, if it has such an id."""
        unknown = self._tokenizer.unk_token_id
        # Byte-level tokenizers (GPT-2, Phi) know every word, and name the end of text where one has to be named.
        return None if unknown is None or unknown in (*self._bos, *self.stop_ids) else int(unknown)

    def encode_prompt(self, prompt: str, *, plain: bool = False, lead: str = "") -> list[int]:
        """Ids up to where the response begins: what generation continues."""
        return [*self._bos, *self._ids(prompt)] if plain else list(self._prompt_ids(prompt, lead))

    def templated(self, prompt: str, response: str) -> tuple[list[int], list[int]]:
        """The template's ids of the prompt with its opening for generation, and of the whole conversation, as they
        stand: the latter need not begin with the former, and nothing behind the end of turn is dropped."""
        user = self._user(prompt)
        (opening,) = self._render([user], True)
        (whole,) = self._render([[*user, {"role": "assistant", "content": response}]], False)
        return self._ids(opening), self._ids(whole)

    @property
    def glue(self) -> str:
        """What the template writes between a conversation's prompt and the response's own text, as part of the latter:
        a `lead` that is to read as the response's beginning begins with it."""
        return self._glue

    def closing(self, encoded: Encoded) -> int:
        """How many of a conversation's last ids are its end-of-turn tokens: all, or none where it was cut."""
        return len(self._end) if encoded.ids[-len(self._end) :] == self._end else 0

    def cut(self, text: str, tokens: int) -> str:
        """The text of its first tokens; where the tokenizer opens texts with a token of its own, that is one of them.

        Source: so muse_bench cuts its references.
        """
        return self.decode([*self._bos, *self._ids(text)][:tokens])

    def characters(self, text: str) -> list[tuple[int, int]]:
        """Of each token of a running text, the first character it stands for and the one behind its last."""
        return list(self._backend.encode(text, add_special_tokens=False).offsets)

    def _running(self, prompt: str, response: str, lead: str) -> tuple[int, list[int], list[tuple[int, int]], int]:
        """Where the response's ids begin, ids of prompt and response as one text, and of the latter's tokens behind the
        prompt the characters they stand for, counted from the text's beginning; and where the response begins there.

        The response begins with the first id that is not the prompt's own: a token that both share is its (" In", where
        a prompt ends in a space). A text without a prompt begins at 0: the token that opens all texts is no prompt.
        """
        opening = self.encode_prompt(prompt, plain=not lead, lead=lead)
        # A template writes the begin-of-text token itself.
        bos, before = ([], self._opened(prompt) + lead) if lead else (self._bos, prompt)
        whole = self._backend.encode(before + response, add_special_tokens=False)
        ids = [*bos, *whole.ids]
        start = next((i for i, (a, b) in enumerate(zip(opening, ids, strict=False)) if a != b), len(opening))
        return start if prompt or lead else 0, ids, whole.offsets[start - len(bos) :], len(before)

    def _encode_prompt(self, prompt: str, lead: str) -> tuple[int, ...]:
        return tuple(self._ids(self._opened(prompt) + lead))

    def _opened(self, prompt: str) -> str:
        """The text of a conversation up to where the assistant speaks."""
        (text,) = self._render([self._user(prompt)], self._generation_prompt)
        return text + self._opening

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).removeprefix(self._glue)

    def identity(self) -> dict[str, Any]:
        """Hash of everything the ids depend on: tokenizer, template, end of turn, context."""
        template = str(self._tokenizer.chat_template)
        return {
            "tokenizer": hashlib.sha256(self._backend.to_str().encode()).hexdigest()[:16],
            "template": hashlib.sha256(f"{template}\x1f{DATE}\x1f{self._add_bos}".encode()).hexdigest()[:16],
            "end": self._end,
            "stop": self.stop_ids,
            "context": self._context,
            **({} if self._system is None else {"system": self._system}),
        }

    def _user(self, prompt: str) -> list[dict[str, str]]:
        """The conversation that a response continues."""
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return [*system, {"role": "user", "content": prompt}]

    def _render(self, conversations: list[list[dict[str, str]]], generation_prompt: bool) -> list[str]:
        texts: Any = self._tokenizer.apply_chat_template(
            conversations,
            tokenize=False,
            add_generation_prompt=generation_prompt,
            date_string=DATE,
            add_bos=self._add_bos,
        )
        return list(texts)

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def _split(self, name: str) -> tuple[bool, str, str, str, tuple[int, ...]]:
        """Whether the template's generation prompt opens the turn, what follows it in the prompt, what the response is
        tokenised behind (its ids are dropped), what precedes the response's text in its tokenisation, and the
        end-of-turn ids: the first choice that gives the template's ids.
        """
        user = self._user(PROBE_PROMPT)
        whole, wanted = self._probe(name, [*user, {"role": "assistant", "content": PROBE_RESPONSE}])
        # Some templates open the assistant's turn otherwise for generation than they write it (a thinking block).
        for generation_prompt in (True, False):
            (prompt,) = self._render([user], generation_prompt)
            if not whole.startswith(prompt):
                continue
            between, found, _ = whole[len(prompt) :].partition(PROBE_RESPONSE)
            if not found:
                continue
            # What stands between belongs to the prompt if it is tokens of its own, else to the response ("▁Ada").
            for anchor in ("", ANCHOR):
                for opening, glue in ((between, ""), ("", between), ("", "")):
                    response = self._ids(anchor + glue + PROBE_RESPONSE)[len(self._ids(anchor)) :]
                    start = self._ids(prompt + opening) + response
                    if wanted[: len(start)] == start:
                        return generation_prompt, opening, anchor, glue, self._end_of_turn(wanted[len(start) :])
        raise DataError(
            f"the chat template of tokenizer {name} cannot be split into prompt and response: ids of a whole "
            "conversation differ from those of its parts; give the tokenizer another chat_template, or try "
            "model.template=plain"
        )

    def _probe(self, name: str, messages: list[dict[str, str]]) -> tuple[str, list[int]]:
        """Text and ids that the template gives for a whole conversation.

        Raises:
            DataError: it is no template, or shows no system turn.
        """
        from jinja2 import TemplateError  # not at the top: plugin files import this module, and need no templates

        try:
            (whole,) = self._render([messages], False)
            ids: Any = self._tokenizer.apply_chat_template(
                messages, return_dict=False, date_string=DATE, add_bos=self._add_bos
            )
        except TemplateError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"the chat template of tokenizer {name} cannot be used: {reason}") from error
        if self._system is not None and self._system.strip() not in whole:
            raise DataError(
                f"the chat template of tokenizer {name} shows no system turn, and model.system is set; type "
                "model.system=null"
            )
        return whole, list(ids)

    def _end_of_turn(self, tail: list[int]) -> tuple[int, ...]:
        """The ids that close a response: up to the first special token after it, or end of text if there is none."""
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        for i, token in enumerate(tail):
            if token in special:
                return tuple(tail[: i + 1])
        return (self._tokenizer.eos_token_id,)
