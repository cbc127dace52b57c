"""MMMU's subjects and domains, its order of random draws, and its printed table."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bunny.core.types import Parsed

SEED = 42  # both MMMU's and CMMMU's script

DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine"),
        *("Pharmacy", "Public_Health"),
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics"),
        *("Energy_and_Power", "Materials", "Mechanical_Engineering"),
    ),
}
SUBJECTS = tuple(sorted(subject for subjects in DOMAINS.values() for subject in subjects))


def subject_of(id: str) -> str:
    """`Art_Theory` of `validation_Art_Theory_7`."""
    return "_".join(id.split("_")[1:-1])


def number_of(id: str) -> int:
    """7 of `validation_Art_Theory_7`; 0 where there is none."""
    tail = id.rsplit("_", 1)[-1]
    return int(tail) if tail.isdecimal() else 0


def drawn(parsed: Sequence[Parsed], rows: Sequence[int], among: Callable[[int], Sequence[str]]) -> list[Parsed]:
    """`parsed` with what could not be read drawn at random, row after row. among: what row r may be; none: no draw."""
    rng, out = random.Random(SEED), list(parsed)
    for row in rows:
        if not parsed[row].value and (values := among(row)):
            out[row] = Parsed(rng.choice(values), "guessed")
    return out


def printed(points: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Subject -> credits, to what the script prints: number and accuracy of domains, subjects, and all."""
    table: dict[str, Any] = {}
    for domain, subjects in DOMAINS.items():
        known = [subject for subject in subjects if subject in points]
        table[f"Overall-{domain}"] = _row([point for subject in known for point in points[subject]])
        table |= {subject: _row(points[subject]) for subject in known}
    return {**table, "Overall": _row([point for each in points.values() for point in each])}


def overall(table: Mapping[str, Any], parse: Mapping[str, Any]) -> dict[str, float]:
    """The headline as the two scripts and the original print it: a rounded share, an exact one, per cent."""
    rounded, exact = table["Overall"]["acc"], parse["overall"]
    percent = round(100 * rounded, 1)
    return {"mmmu_val_pct": percent, "mmmu_val_exact": exact, "exact": exact, "eval_only": rounded}


def by_subject(ids: Sequence[str], points: Sequence[float]) -> dict[str, list[float]]:
    """Subject -> credits."""
    groups: dict[str, list[float]] = defaultdict(list)
    for id, point in zip(ids, points, strict=True):
        groups[subject_of(id)].append(point)
    return groups


def _row(points: Sequence[float]) -> dict[str, float]:
    return {"num": len(points), "acc": round(sum(points) / len(points), 3) if points else 0}
