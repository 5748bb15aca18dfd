"""Compares methods after the same tuning: trials of each arm, the best of them, and its runs under attack."""
