"""What leaves a run folder: the model card, the audit of a request, and the files that a hub repository gets."""
