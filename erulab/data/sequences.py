"""Sequences too long to hold in memory: items are made when asked for, a numpy record of each is always at hand."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import lazy_loader

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

T = TypeVar("T")

CHUNK = 65536  # records that are hashed at once


class Marked(Sequence[T]):
    """A sequence whose items come with fixed-size records (marks); a slice is a view and copies nothing."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Marked[T]: ...

    def __getitem__(self, index: int | slice) -> T | Marked[T]:
        if isinstance(index, slice):
            return Picked(self, range(*index.indices(len(self))))
        # range() knows negative indices, and raises IndexError beyond the ends.
        return self.item(range(len(self))[index])

    def __iter__(self) -> Iterator[T]:
        return (self.item(i) for i in range(len(self)))

    @abstractmethod
    def item(self, index: int) -> T:
        """The item at 0 <= index < len."""

    @abstractmethod
    def field(self, name: str) -> np.ndarray[Any, Any]:
        """(n,) one field of every mark."""

    @abstractmethod
    def digests(self) -> Iterator[np.ndarray[Any, Any]]:
        """The field "digest", in order and in pieces."""


class Joined(Marked[T]):
    """Sequences one after another."""

    def __init__(self, parts: Sequence[Marked[T]]) -> None:
        self.parts = tuple(parts)
        self._length = sum(len(part) for part in self.parts)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return (item for part in self.parts for item in part)

    def item(self, index: int) -> T:
        for part in self.parts:
            if index < len(part):
                return part.item(index)
            index -= len(part)
        raise IndexError(index)

    def field(self, name: str) -> np.ndarray[Any, Any]:
        return np.concatenate([part.field(name) for part in self.parts])

    def digests(self) -> Iterator[np.ndarray[Any, Any]]:
        for part in self.parts:
            yield from part.digests()


class Picked(Marked[T]):
    """Items of another sequence, in an order of their own: a range, or eight bytes an item."""

    def __init__(self, source: Marked[T], places: range | np.ndarray[Any, Any]) -> None:
        self.source, self.places = source, places

    def __len__(self) -> int:
        return len(self.places)

    def item(self, index: int) -> T:
        return self.source.item(int(self.places[index]))

    def field(self, name: str) -> np.ndarray[Any, Any]:
        return self.source.field(name)[np.asarray(self.places, dtype=np.int64)]

    def digests(self) -> Iterator[np.ndarray[Any, Any]]:
        every = self.source.field("digest")
        for first in range(0, len(self.places), CHUNK):
            yield every[np.asarray(self.places[first : first + CHUNK], dtype=np.int64)]


def pick(items: Sequence[T], places: Sequence[int] | np.ndarray[Any, Any]) -> Sequence[T]:
    """The items at these places: copied where they are in memory, a view where they are not."""
    if isinstance(items, Marked):
        return Picked(items, np.asarray(places, dtype=np.int64))
    return tuple(items[int(i)] for i in places)


def hash_of(digests: Iterator[np.ndarray[Any, Any]]) -> str:
    """32 hex digits of all digests in order: what they are of counts, not how the sequence was put together."""
    total = hashlib.sha256()
    for piece in digests:
        for first in range(0, len(piece), CHUNK):
            total.update(piece[first : first + CHUNK].tobytes())
    return total.hexdigest()[:32]
