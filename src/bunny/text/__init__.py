"""Conversations to token ids and labels (built together), and rows of ids to packed batches. No torch."""
