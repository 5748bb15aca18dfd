"""From the command line to one typed RunConfig: composition, the list of checks, and their messages."""
