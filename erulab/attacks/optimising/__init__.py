"""Prompts that are optimised: the facts they are optimised for, the gradients, and the search over tokens."""
