from __future__ import annotations

from tests.commands import command, here, worker

__all__ = ["command", "here", "worker"]  # fixtures
