from __future__ import annotations

from tests.commands import command, here, worker
from tests.pipeline.conftest import copy_first
from tests.reporting.conftest import make_run

__all__ = ["command", "copy_first", "here", "make_run", "worker"]  # fixtures
