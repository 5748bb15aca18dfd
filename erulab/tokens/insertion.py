"""A chat format that inserts further ids into every prompt: a searched suffix, or places for vectors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from enum import Enum

from erulab.data.rows import Row
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import CACHED_PROMPTS, ChatFormat
from erulab.tokens.rendering import PROBE_PROMPT, Conversation


class Place(Enum):
    """Where the ids stand."""

    user_turn = "user_turn"  # behind the last token of the user's text, before what the template closes the turn with
    response = "response"  # right before the response, behind all that the template writes


class InsertingChatFormat(ChatFormat):
    """Encodes rows as another format does, with ids inserted into their prompts; no other id changes.

    Running text has no turns: there the ids stand before the response in any case. Rows for training (`encode_batch`)
    are left as they are.
    """

    def __init__(self, chat: ChatFormat, ids_of: Callable[[str], Sequence[int]], place: Place) -> None:
        """
        Args:
            ids_of: prompt (the last user turn) -> ids that are inserted.
        """
        vars(self).update(vars(chat))  # the same tokenizer, template and limits
        self._chat, self._ids_of, self._place = chat, ids_of, place
        (probe,) = self._template.render_openings([(("user", PROBE_PROMPT),)])
        self._closing = probe.rpartition(PROBE_PROMPT)[2]
        self._user_end = functools.lru_cache(CACHED_PROMPTS)(self._find_user_end)

    def encode(
        self,
        row: Row,
        response: str | None = None,
        span: tuple[int, int] | None = None,
        max_length: int | None = None,
    ) -> Encoded:
        inserted = self._ids_of(row.prompt)
        room = max(self.limit(max_length) - len(inserted), 1)
        found = self._chat.encode(row, response, span, room)
        return Encoded(
            row.id, self._insert(found.ids, inserted, row), found.start + len(inserted), found.end + len(inserted)
        )

    def encode_prompt(self, row: Row) -> list[int]:
        return list(self._insert(self._chat.encode_prompt(row), self._ids_of(row.prompt), row))

    def fits(self, row: Row) -> bool:
        """Tells whether prompt, inserted ids and the whole response fit the model's context."""
        return len(self._chat.encode(row).ids) + len(self._ids_of(row.prompt)) <= self.limit(None)

    def _insert(self, ids: Sequence[int], inserted: Sequence[int], row: Row) -> tuple[int, ...]:
        if self._place is Place.user_turn and not row.plain:
            place = self._user_end(self._conversation(row), row.answer_prefix)
        else:
            opening = self._chat.encode_prompt(row)
            # In running text the prompt's last token may have merged with the response's first.
            place = next((i for i, (a, b) in enumerate(zip(opening, ids, strict=False)) if a != b), len(opening))
        return (*ids[:place], *inserted, *ids[place:])

    def _find_user_end(self, conversation: Conversation, answer_prefix: str) -> int:
        """Counts the prompt's ids up to the end of the user's last turn."""
        (text,) = self._template.render_openings([conversation])
        end = len(text) - len(self._closing)
        offsets = self._backend.encode(text + answer_prefix, add_special_tokens=False).offsets
        return next((i for i, (first, _) in enumerate(offsets) if first >= end), len(offsets))
