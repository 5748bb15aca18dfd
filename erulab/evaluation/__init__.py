"""Evaluation: teacher-forced scores, greedy responses, and the metrics computed from both."""
