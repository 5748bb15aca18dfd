"""Trials that break runs on purpose: kills, damaged files, full disks, silent ranks, hostile and random input."""
