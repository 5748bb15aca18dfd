"""Evaluation: teacher-forced scores, generated responses, and the figures that are computed from both."""
