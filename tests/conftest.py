"""One thread a process, here and in every process that tests start: tiny models gain nothing from more, and two
processes that spin on two cores each wait for one another."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
