"""Commands about runs: what there is, how far it is, what a run would do, what it needs, and how to remove it."""
