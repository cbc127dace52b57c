"""MMBench in Chinese: the same questions and rules as `mmbench_en`, asked for the letter in Chinese."""

from __future__ import annotations

from typing import ClassVar

from bunny.evaluate.benchmarks.mmbench_en import HOME, MmbenchEn
from bunny.evaluate.official.benchmark import DataFile


class MmbenchCn(MmbenchEn):
    """4,329 rows (dev), 1,164 questions."""

    name: str = "mmbench_cn"
    LANGUAGE: ClassVar[str] = "CN"
    SUFFIX: ClassVar[str] = "\n请直接回答选项字母。"
    FILES: ClassVar = (DataFile("MMBench_DEV_CN_legacy.tsv", HOME, 4329),)


USE = MmbenchCn
