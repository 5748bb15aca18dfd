"""The worker's check, before it begins, that all ranks see one folder."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from erulab.errors import EnvironmentFault
from erulab.ranks import Ranks
from erulab.worker import _check_shared


class Thread(Ranks):
    """A rank that is a thread of this process; it gives up after 5 s if another rank never arrives."""

    def __init__(self, rank: int, told: list[Any], meeting: threading.Barrier) -> None:
        super().__init__(rank, len(told))
        self._told, self._meeting = told, meeting

    def gather_objects(self, value: Any) -> list[Any]:
        self._told[self.rank] = value
        self._meeting.wait(5)
        values = list(self._told)
        self._meeting.wait(5)
        return values


def check_shared(*folders: Path) -> list[str]:
    """Returns the error that each rank gets, in the order of the folders; "" if nothing is wrong."""
    told, meeting = [None] * len(folders), threading.Barrier(len(folders))

    def check(rank: int) -> str:
        try:
            _check_shared(folders[rank], Thread(rank, told, meeting))
        except EnvironmentFault as fault:
            return str(fault)
        return ""

    with ThreadPoolExecutor() as pool:
        return list(pool.map(check, range(len(folders))))


def test_all_hosts_find_one_folder(tmp_path: Path) -> None:
    assert check_shared(tmp_path / "run", tmp_path / "run") == ["", ""]
    assert list((tmp_path / "run").iterdir()) == []


def test_another_folder_is_told_to_all(tmp_path: Path) -> None:
    assert all("is not the folder of that name" in told for told in check_shared(tmp_path / "a", tmp_path / "b"))


@pytest.mark.parametrize("bad", [0, 1])
def test_a_folder_that_one_rank_cannot_write_is_told_to_all(bad: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folders = [tmp_path / "run", tmp_path / "run"]
    folders[bad] = tmp_path / "file" / "run"
    first, second = check_shared(*folders)
    assert first == second and f"cannot write to {folders[bad]} on " in first and "cache=FOLDER" in first
    assert not list(tmp_path.glob("run/.shared-*"))
