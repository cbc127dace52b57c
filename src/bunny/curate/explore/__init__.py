"""Questions about a finished curation, asked by a browser: rows by filter, groups, thresholds, a map, second thoughts.

In: a decision table on disk, and whoever can give vectors and samples of its rows. Out: plain JSON-able records.
"""

from bunny.curate.explore.decisions import Decisions
from bunny.curate.explore.explorer import Explorer, PoolRows
from bunny.curate.explore.overrides import Overrides

__all__ = ["Decisions", "Explorer", "Overrides", "PoolRows"]
