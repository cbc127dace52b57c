"""What a finished run says: every file but what only tells of times, memory and places."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

TIMES = ("report.html", "summary.json", "part.json", "results.json", "manifest.json")  # compared without them
UNSTEADY = ("seconds", "memory", "curation_report")


def marks(folder: Path) -> dict[str, str]:
    """File -> digest; of the few that hold times, what they say beside. What heavy steps keep for the next run (`work`)
    is named after where it lies; the decisions tell whether it was right."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] != "work" and not any(part.startswith(".") for part in parts):
            content = path.read_bytes()
            if path.suffix == ".json" and path.name in TIMES:
                told = {key: value for key, value in json.loads(content).items() if key not in UNSTEADY}
                content = json.dumps(told).encode()
            elif path.name in TIMES:
                content = b""
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found
