"""Prompts that are searched for: for whom, by which gradients, among which tokens."""
