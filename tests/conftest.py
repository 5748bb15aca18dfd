"""What every test shares: one thread per process, the marker `quick`, slow modules first."""

from __future__ import annotations

import os

# Tiny models gain nothing from a second thread, and two workers that start two threads each wait for one another.
# Tests that compare two runs bit by bit need a fixed number. Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
