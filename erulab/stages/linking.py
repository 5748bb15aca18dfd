"""Gives a run folder the files of a product of the cache without copying them."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from erulab.checksums import find_fault, hash_files
from erulab.rundir import CARD

log = logging.getLogger(__name__)


def link_folder(source: Path, destination: Path) -> None:
    """Hard-links a folder's files, or copies them across file systems; replaces `destination`, whole or not at all.

    A `destination` with other content, such as a model that was trained further in its place, is kept beside it.
    """
    alone = (CARD,)  # written into the run folder's copy only
    if destination.is_dir() and find_fault(destination, hash_files(source, alone), without=alone) is not None:
        aside = destination.with_name(f"{destination.name}.changed")
        shutil.rmtree(aside, ignore_errors=True)
        destination.rename(aside)
        log.warning("%s has other content than this run's %s: it is now %s", destination, source, aside.name)
    working = destination.with_name(f".{destination.name}.tmp")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    try:
        for file in source.iterdir():
            try:
                os.link(file, working / file.name)
            except OSError:
                shutil.copy2(file, working / file.name)
        shutil.rmtree(destination, ignore_errors=True)
        working.rename(destination)
    except OSError:
        shutil.rmtree(working, ignore_errors=True)  # on a full disk a half copy would only take room
        raise
