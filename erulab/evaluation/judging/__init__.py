"""A judge model says whether a response holds the fact."""
