"""Methods compared after the same tuning: each arm's trials, the best of them, its runs under attack."""
