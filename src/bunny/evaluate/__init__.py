"""Evaluation: questions in, scores with intervals beside honest baselines out. No torch; models come as `Answerer`s.

Reading order: `runner.evaluate` (ask, join, read, score), `benchmarks/` (one file each), `parse`, `scoring`, `stats`,
`baselines`, `cache`, `report`.
"""

from bunny.evaluate.baselines import Blind, Majority, Shuffled, majority, shuffled
from bunny.evaluate.cache import AnswerCache
from bunny.evaluate.runner import Outcome, evaluate, score

BENCHMARKS = "bunny.evaluate.benchmarks"
"""Where `bunny.core.recipe.make` finds benchmarks by name."""

__all__ = [
    "BENCHMARKS",
    "AnswerCache",
    "Blind",
    "Majority",
    "Outcome",
    "Shuffled",
    "evaluate",
    "majority",
    "score",
    "shuffled",
]
