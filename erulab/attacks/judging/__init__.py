"""Judging attacks: running one, choosing among its attempts, and computing its rows of attacks.json."""
