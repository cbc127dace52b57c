"""Whether to believe a difference, in words: paired, by pictures, corrected for how many benchmarks were compared.

In: two results per benchmark. Out: for each the difference with its interval, how likely chance alone would give it,
the smallest difference that such a comparison finds in four of five cases, and a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any, Literal

from bunny.core.types import EvalResult, Interval
from bunny.evaluate.stats import LEVEL, detectable, difference, holm, paired_p

Mark = Literal["better", "worse", "unsure"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """B minus A on one benchmark. p: alone; corrected: among all benchmarks of the comparison (Holm 1979)."""

    gap: Interval
    p: float
    corrected: float
    detectable: float
    among: int

    @property
    def mark(self) -> Mark:
        """Surely better, surely worse, or neither."""
        if self.corrected >= 1 - LEVEL:
            return "unsure"
        return "better" if self.gap.score > 0 else "worse"

    def words(self, better: str = "B", worse: str = "A") -> str:
        """One sentence about how far the first stands above or below the second, and whether that can be trusted."""
        way = "above" if self.gap.score >= 0 else "below"
        interval = f"95 % interval of {better} - {worse}: {self.gap.low:+.1f} to {self.gap.high:+.1f}"
        said = f"{better} is {abs(self.gap.score):.1f} points {way} {worse} ({interval})"
        chance = f"p {chance_text(self.corrected)}" + (
            f" after correction for {self.among} benchmarks" * (self.among > 1)
        )
        if self.mark != "unsure":
            return f"{said}, {chance}: this can be trusted."
        return f"{said}, {chance}: this could be chance. {self.reach()}"

    def reach(self) -> str:
        """What a comparison of this size can find."""
        if isinf(self.detectable):
            return "The two were not asked about the same pictures, so nothing is paired."
        if self.detectable <= 0:
            return "They were right and wrong on the same questions."
        return (
            f"A comparison of this size finds a true difference of {self.detectable:.1f} points in four of five cases."
        )

    def as_json(self) -> dict[str, Any]:
        """Plain; `detectable` is null where nothing is paired."""
        return {
            "difference": {"score": self.gap.score, "low": self.gap.low, "high": self.gap.high},
            "p": self.p,
            "p_corrected": self.corrected,
            "detectable": None if isinf(self.detectable) else self.detectable,
            "mark": self.mark,
            "words": self.words(),
        }


def judge(pairs: Sequence[tuple[EvalResult, EvalResult]]) -> list[Verdict]:
    """The verdict on each (A, B), corrected for their number."""
    chances = [paired_p(b, a) for a, b in pairs]
    return [
        Verdict(difference(b, a), p, corrected, detectable(b, a), len(pairs))
        for (a, b), p, corrected in zip(pairs, chances, holm(chances), strict=True)
    ]


def chance_text(chance: float) -> str:
    """`= 0.012` or `< 0.001`."""
    return "< 0.001" if chance < 0.001 else f"= {chance:.3f}" if chance < 0.1 else f"= {chance:.2f}"
