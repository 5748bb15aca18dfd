"""A tokenizer's chat template: renders conversations, and knows how its text is split into prompt and response."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from erulab.errors import DataError, ErulabError
from erulab.faults import cause_of
from erulab.tokens.bounds import MEMORY, bounded_rendering, longest_rendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some templates write today's date into the system turn unless told one: ids would differ from day to day.
# This is the date open-unlearning's TOFU checkpoints were trained with.
DAY = datetime.datetime(2025, 4, 10)
OTHER_DAY = datetime.datetime(2024, 12, 31, 13, 45, 59)  # differs in everything that a template may write
DATE = "10 Apr 2025"
_TODAY = re.compile(r"\bstrftime_now\s*\(|\bnow\(\s*\)")
_LITERAL_TODAY = re.compile(r"""\b(?:strftime_now|now\(\s*\)\.strftime)\(\s*(['"])(.*?)\1\s*\)""")
PROBE_PROMPT, PROBE_RESPONSE = "Where was Ada born?", "Ada was born in Brenwick, by the sea."
# SentencePiece tokenizers put a space mark before every text. Behind this they put none, and it merges with nothing.
ANCHOR = "\n"

Conversation = tuple[tuple[str, str], ...]  # (role, content) of each turn


class ChatTemplate:
    """The template of a tokenizer, and how a conversation's text is split.

    `opening` follows the rendered prompt, as part of it. A response is tokenised behind `anchor`, whose ids are
    dropped, and `response_prefix`, whose ids are the response's; `end` are the ids of the end of turn.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        encode: Callable[[str], list[int]],
        add_bos: bool,
        system: str | None,
    ) -> None:
        """
        Args:
            name: of the tokenizer, for messages.
            encode: text -> ids, without special tokens of the tokenizer's own.
            add_bos: whether the tokenizer opens every text with its begin-of-text token.
            system: the system turn before every prompt; None: what the template has by itself.
        Raises:
            DataError: the template cannot be split, is no Jinja, or shows no system turn.
        """
        self._tokenizer, self._name, self._encode, self._add_bos = tokenizer, name, encode, add_bos
        if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
            raise DataError(
                f"tokenizer {name} has the chat templates {', '.join(tokenizer.chat_template)} and no default; "
                "type model.template=FILE"
            )
        # A template that asks for today gets `DAY`, in the text itself: it cannot be given another clock.
        own = str(tokenizer.get_chat_template())
        self._text, self._asks_today = _on_day(own, DAY), False
        if _TODAY.search(self._text):
            raise DataError(
                f"the chat template of tokenizer {name} computes how it writes today's date, so that ids would differ "
                "from day to day; write the form of the date into a file: model.template=FILE"
            )
        self.unmarked_end = ""  # what the template writes behind a response, if none of it is a special token
        probe: Conversation = () if system is None else (("system", system),)
        self._generation_prompt, self.opening, self.anchor, self.response_prefix, self.end = self._split(
            (*probe, ("user", PROBE_PROMPT))
        )
        probes = [(*probe, ("user", PROBE_PROMPT))]
        today, self._text = self._text, _on_day(own, OTHER_DAY)
        other = self.render(probes, generation_prompt=True)
        self._text = today
        self._asks_today = other != self.render(probes, generation_prompt=True)

    def render(self, conversations: Sequence[Conversation], generation_prompt: bool) -> list[str]:
        """Renders each conversation as text.

        Raises:
            DataError: the template takes no such conversation, or does not show its system turn.
        """
        if not conversations:
            return []
        with self._faults(len(conversations)):
            texts: Any = self._tokenizer.apply_chat_template(
                [_messages(turns) for turns in conversations],
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self._fixed(),
            )
        for turns, text in zip(conversations, texts, strict=True):
            longest = longest_rendering(sum(len(content) for _, content in turns))
            if len(text) > longest:
                raise self._refusal(f"it makes {len(text):,} characters of a conversation that may have {longest:,}")
            if turns[0][0] == "system" and turns[0][1].strip() not in text:
                raise DataError(
                    f"the chat template of tokenizer {self._name} shows no system turn, and model.system or a row's "
                    "system turn is set; type model.system=null, or leave the row's system turn out"
                )
        return list(texts)

    def render_openings(self, conversations: Sequence[Conversation]) -> list[str]:
        """Renders each conversation up to where the assistant speaks."""
        return [text + self.opening for text in self.render(conversations, self._generation_prompt)]

    def hash(self) -> str:
        """Hashes what the rendered text depends on beside the conversation."""
        template = str(self._tokenizer.chat_template)
        # Only for templates that ask for today: the ids of all others were always the same.
        today = f"\x1f{DAY.isoformat()}" if self._asks_today else ""
        return hashlib.sha256(f"{template}\x1f{DATE}\x1f{self._add_bos}{today}".encode()).hexdigest()[:16]

    def _fixed(self) -> dict[str, Any]:
        """Returns the arguments of every rendering: the text, and a date that never changes."""
        return {"chat_template": self._text, "date_string": DATE, "add_bos": self._add_bos}

    @contextlib.contextmanager
    def _faults(self, conversations: int) -> Iterator[None]:
        """Turns every error of a rendering into one line: a template is a program, and may raise anything.

        Args:
            conversations: how many are rendered.
        Raises:
            DataError: the template raised an error, or took too long or too much memory.
        """
        try:
            with bounded_rendering(conversations):
                yield
        except ErulabError:
            raise
        except MemoryError as error:
            raise self._refusal(f"it takes more than {MEMORY >> 30} GiB of memory") from error
        except RecursionError as error:
            raise self._refusal("it calls itself without end") from error
        except Exception as error:
            raise self._refusal(cause_of(error)) from error

    def _refusal(self, reason: str) -> DataError:
        return DataError(
            f"the chat template of tokenizer {self._name} cannot be used: {reason}; give another, such as "
            "model.template=plain or a file of Jinja"
        )

    def _split(self, prompt_turns: Conversation) -> tuple[bool, str, str, str, tuple[int, ...]]:
        """Finds the first split of a probe conversation whose parts give the template's own ids.

        Returns:
            Whether the template's generation prompt opens the turn; opening; anchor; response prefix; end-of-turn ids.
        """
        whole_turns = (*prompt_turns, ("assistant", PROBE_RESPONSE))
        (whole,) = self.render([whole_turns], generation_prompt=False)
        with self._faults(1):
            ids: Any = self._tokenizer.apply_chat_template(_messages(whole_turns), return_dict=False, **self._fixed())
        wanted = list(ids)
        # Some templates open a turn for generation with other text than a written turn (a thinking block).
        for generation_prompt in (True, False):
            (prompt,) = self.render([prompt_turns], generation_prompt)
            if not whole.startswith(prompt):
                continue
            between, found, _ = whole[len(prompt) :].partition(PROBE_RESPONSE)
            if not found:
                continue
            # The text between them belongs to the prompt if it has tokens of its own, else to the response ("▁Ada").
            for anchor in ("", ANCHOR):
                for opening, prefix in ((between, ""), ("", between), ("", "")):
                    response = self._encode(anchor + prefix + PROBE_RESPONSE)[len(self._encode(anchor)) :]
                    start = self._encode(prompt + opening) + response
                    if wanted[: len(start)] == start:
                        return generation_prompt, opening, anchor, prefix, self._end_of_turn(wanted[len(start) :])
        raise DataError(
            f"the chat template of tokenizer {self._name} cannot be split into prompt and response: ids of a whole "
            "conversation differ from those of its parts; give the tokenizer another chat_template, or try "
            "model.template=plain"
        )

    def _end_of_turn(self, tail: list[int]) -> tuple[int, ...]:
        """Returns the ids that close a response: up to the first special token after it, or end of text without one."""
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        for i, token in enumerate(tail):
            if token in special:
                return tuple(tail[: i + 1])
        self.unmarked_end = str(self._tokenizer.decode(tail)).strip()
        end: Any = self._tokenizer.eos_token_id
        return (end,)


def _on_day(template: str, day: datetime.datetime) -> str:
    """Writes a day into a template wherever it asks for today in a form that it names."""
    return _LITERAL_TODAY.sub(lambda call: repr(day.strftime(call[2])), template)


def _messages(turns: Conversation) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]
