"""The stages of a run: each makes one product, keyed by everything it depends on."""
