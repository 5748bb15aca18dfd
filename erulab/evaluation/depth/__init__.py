"""The Unlearning Depth Score: how deep in the network forgotten facts can no longer be read."""
