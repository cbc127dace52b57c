"""Checks of what a page owes to people who do not see it, or see it badly: names, contrast, sizes, order of headings.

`FAULTS` is JavaScript whose value is a list of sentences; an empty list is a good page.
"""

from pathlib import Path

FAULTS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
