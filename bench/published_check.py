"""How fast `bunny data check` is beside asking the disk for every picture by itself, in the same run.

`python bench/published_check.py --pictures 500000` makes that many empty files in one folder (and removes them again),
and a JSON file that names them; prints seconds, rows a second and megabytes of memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import yaml

from bunny.data import published_sets
from bunny.data.published_check import check

ANSWER = "A picture of something, told in a sentence or two, as captions of the web are. " * 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200_000)
    count = parser.parse_args().pictures
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make(root, count)
        facts = root / "facts"
        published_sets.facts_folder = lambda: facts
        start = time.perf_counter()
        report = check("made-up", root)
        checked = time.perf_counter() - start
        assert report.rows == count and report.folders[0].missing == 0
        start = time.perf_counter()
        rows = json.loads((root / "set.json").read_text())
        assert all((root / "images" / row["image"]).is_file() for row in rows)
        one_by_one = time.perf_counter() - start
        size = (root / "set.json").stat().st_size / 1e6
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{count:,} pictures, {size:.0f} MB of JSON, {memory:.0f} MB of memory at most (the rival's)")
    print(f"check       {checked:6.1f} s, {count / checked:,.0f} rows a second")
    print(f"one by one  {one_by_one:6.1f} s, {count / one_by_one:,.0f} rows a second")


def make(root: Path, count: int) -> None:
    """The made-up set `made-up`, whole, below `root`."""
    (root / "images").mkdir()
    (root / "facts").mkdir()
    with (root / "set.json").open("w") as file:
        for number in range(count):
            name = f"{number:09}.jpg"
            (root / "images" / name).touch()
            talk = [{"from": "human", "value": "Describe it.\n<image>"}, {"from": "gpt", "value": ANSWER}]
            row = {"id": str(number), "image": name, "conversations": talk}
            file.write(("[" if number == 0 else ",\n") + json.dumps(row))
        file.write("]")
    words = dict.fromkeys(("title", "about", "hub", "archives", "licence"), "made up")
    file_facts = {"path": "set.json", "rows": count, "within": 0, "size": "?"}
    facts = {**words, "images": "images", "files": [file_facts], "facts": []}
    (root / "facts" / "made-up.yaml").write_text(yaml.safe_dump(facts))


if __name__ == "__main__":
    main()
