"""Rewriting the weights of linear layers."""
