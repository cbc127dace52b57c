"""Embedders: pictures and texts in, unit vectors of one joint space out. One file per model family (`use: clip`)."""
