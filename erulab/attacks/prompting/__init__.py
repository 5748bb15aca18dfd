"""Rewritten prompts, and the facts that a prompt may show."""
