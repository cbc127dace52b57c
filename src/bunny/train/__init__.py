"""Training: rows, what learns, and the two stages (align the projector, tune the model)."""
