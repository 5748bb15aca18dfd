"""Turns a command line into one typed RunConfig: composition, the list of checks, and their messages."""
