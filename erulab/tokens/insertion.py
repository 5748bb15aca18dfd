"""A chat format that puts further ids into every prompt: a suffix that was searched for, or places for vectors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from enum import Enum

from erulab.data.rows import Row
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import PROBE_PROMPT, PROMPTS, ChatFormat


class Place(Enum):
    """Where the ids stand."""

    user_turn = "user_turn"  # behind the last token of the user's text, before what the template closes the turn with
    response = "response"  # right before the response, behind all that the template writes


class Inserted(ChatFormat):
    """What is evaluated is encoded as another format does it, with ids put into its prompt; no other id changes.

    Running text has no turns: there the ids stand before the response in any case. Rows for training (`encode_whole`)
    are left as they are.
    """

    def __init__(self, chat: ChatFormat, ids_of: Callable[[str], Sequence[int]], place: Place) -> None:
        """
        Args:
            ids_of: prompt -> ids that are put into it.
        """
        vars(self).update(vars(chat))  # the same tokenizer, template and limits
        self._chat, self._ids_of, self._place = chat, ids_of, place
        self._closing = self._opened(PROBE_PROMPT).rpartition(PROBE_PROMPT)[2]
        self._user_end = functools.lru_cache(PROMPTS)(self._find_user_end)

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
        inserted = self._ids_of(prompt)
        room = max(self.limit(max_length) - len(inserted), 1)
        found = self._chat.encode(row_id, prompt, response, span, room, plain=plain, lead=lead)
        ids = self._with(found.ids, inserted, prompt, plain, lead)
        return Encoded(row_id, ids, found.start + len(inserted), found.end + len(inserted))

    def encode_prompt(self, prompt: str, *, plain: bool = False, lead: str = "") -> list[int]:
        ids = self._chat.encode_prompt(prompt, plain=plain, lead=lead)
        return list(self._with(ids, self._ids_of(prompt), prompt, plain, lead))

    def fits(self, row: Row) -> bool:
        """Whether prompt, ids and whole response are within what the model can read."""
        whole = self._chat.encode(row.id, row.prompt, row.response, plain=row.plain, lead=row.lead)
        return len(whole.ids) + len(self._ids_of(row.prompt)) <= self.limit(None)

    def _with(
        self, ids: Sequence[int], inserted: Sequence[int], prompt: str, plain: bool, lead: str
    ) -> tuple[int, ...]:
        if self._place is Place.user_turn and not plain:
            place = self._user_end(prompt, lead)
        else:
            opening = self._chat.encode_prompt(prompt, plain=plain, lead=lead)
            # In running text the prompt's last token may have merged with the response's first.
            place = next((i for i, (a, b) in enumerate(zip(opening, ids, strict=False)) if a != b), len(opening))
        return (*ids[:place], *inserted, *ids[place:])

    def _find_user_end(self, prompt: str, lead: str) -> int:
        """How many of the prompt's ids stand up to the end of the user's text."""
        text = self._opened(prompt)
        end = len(text) - len(self._closing)
        offsets = self._backend.encode(text + lead, add_special_tokens=False).offsets
        return next((i for i, (first, _) in enumerate(offsets) if first >= end), len(offsets))
