"""The arithmetic of figures, one file per subject: pure functions of numbers, texts and row scores."""
