"""Samples written in the layouts that other programs read: one small file a layout, found by its name (`use: …`)."""
