"""A file that is one JSON array, parsed value by value: as much of it is held as a value needs."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from erulab.data.text_files import no_utf8, opened
from erulab.errors import DataError

BLANKS = re.compile(r"[ \t\r\n]*")
WINDOW = 1 << 20  # bytes read at once


def read_array(file: Path, schema: str) -> Iterator[tuple[str, Any]]:
    """Where each value stands ("forget.json:3"), and the value.

    Args:
        schema: what a value must look like, for messages.
    Raises:
        DataError: unreadable, no JSON, or more than one array; with file and line.
    """
    with opened(file) as content:
        text = _Window(file, content)
        text.next_character()
        text.advance(1)
        while text.next_character() != "]":
            where = f"{file}:{text.line}"
            yield where, text.value(where, schema)
            if text.next_character() == ",":
                text.advance(1)
                if text.next_character() == "]":
                    raise DataError(f"{file}:{text.line}: a comma before the closing ]; remove it")
            elif text.next_character() != "]":
                raise DataError(
                    f"{file}:{text.line}: the array is not closed or lacks a comma; expected an array of {schema}"
                )
        text.advance(1)
        if text.next_character():
            raise DataError(f"{file}:{text.line}: something follows the array; expected one array of {schema}, no more")


class _Window:
    """The part of a JSON file that is being parsed: grows on demand, and forgets what lies behind."""

    def __init__(self, file: Path, content: IO[bytes]) -> None:
        self.line = 1
        self._file, self._content = file, content
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._position = "", 0

    def next_character(self) -> str:
        """The next one that is not blank, reading on to it; "" at the end of the file."""
        while True:
            self.advance(len(BLANKS.match(self._text, self._position)[0]))  # type: ignore[index]
            if self._position < len(self._text) or not self._more():
                return self._text[self._position : self._position + 1]

    def advance(self, characters: int) -> None:
        self.line += self._text.count("\n", self._position, self._position + characters)
        self._position += characters

    def value(self, where: str, schema: str) -> Any:
        """The JSON value that begins here.

        Raises:
            DataError: it is none, or the file ends in it.
        """
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise DataError(f"{where}: no valid JSON ({error.msg}); expected an array of {schema}") from error
            else:
                self.advance(end - self._position)
                return value

    def _more(self) -> bool:
        """Reads on, as much again as there is: a long value is not parsed too often."""
        self._text, self._position = self._text[self._position :], 0
        read = self._content.read(max(WINDOW, len(self._text)))
        try:
            self._text += self._decoder.decode(read, final=not read)
        except UnicodeDecodeError as error:
            line = self.line + self._text.count("\n") + error.object.count(b"\n", 0, error.start)
            raise no_utf8(self._file, line, error) from error
        return bool(read)
