"""One row per folder and check, with the largest difference; exit code 1 if any check fails.

A folder holds what the original computed on a tiny model: config, images, data.json, golden.json, golden.npz, and the
checkpoints (`model`, `lora`, `lora_merged`, `pretrain`); or `projectors`, or `misc`. Everything goes through the same
import, processor, writer, generator and training stage that users have.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.parity.row import Row

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main(words: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="one JSON list on standard output")
    parser.add_argument("--no-training", action="store_true", help="leave the training traces out")
    arguments = parser.parse_args(words)
    rows = [row for folder in arguments.folders for row in check_folder(folder.resolve(), not arguments.no_training)]
    if arguments.json:
        sys.stdout.write(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{row.line}\n" for row in rows))
    return 0 if rows and all(row.ok for row in rows) else 1


def check_folder(folder: Path, training: bool = True) -> Iterator[Row]:
    """All checks that the folder has data for."""
    from tests.parity import checks, parts, traces
    from tests.parity.row import guarded

    if folder.name == "misc" or (folder / "sampler.json").exists():
        yield from guarded(folder, parts.misc(folder))
    elif not (folder / "base_llm").exists() and (folder / "golden.npz").exists():
        yield from guarded(folder, parts.projectors(folder))
    else:
        with TemporaryDirectory() as work:
            yield from guarded(folder, checks.model_folder(folder, Path(work)))
            if training:
                yield from guarded(folder, traces.training(folder, Path(work)))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(min(2, os.cpu_count() or 1))  # here only: called from a test, it would change later tests
    sys.exit(main())
