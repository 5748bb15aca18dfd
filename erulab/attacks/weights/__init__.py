"""Linear layers whose weights are rewritten."""
