"""Rows that are asked otherwise, and what a prompt may show."""
