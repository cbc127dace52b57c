"""Parity with the original Bunny: `python -m tests.parity FOLDER… [--json]` on any folder of the golden layout."""
