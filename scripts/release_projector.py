"""Makes an aligned projector small enough to ship: half precision, without layers that are never used.

    python scripts/release_projector.py runs/align-demo/aligned demo

In: the folder of an align stage and where to put the release. Out: `projector.safetensors` (float16),
`projector.log.jsonl` (the run's loss per step) and `projector.json` (checksum, settings, steps, seconds).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from bunny.model.projector import build_projector


def main(aligned: Path, out: Path) -> None:
    manifest = json.loads((aligned / "manifest.json").read_text(encoding="utf-8"))
    kind = manifest["settings"]["model"]["projector"]
    state = load_file(aligned / "projector.safetensors")
    never = set(getattr(build_projector(kind, 1, 1), "unused", ()))
    target = out / "projector.safetensors"
    kept = {name: tensor.half() for name, tensor in state.items() if name not in never}
    save_file(kept, target, metadata={"format": "pt", "projector_type": kind})
    rows = [json.loads(line) for line in (aligned / "training" / "metrics.jsonl").read_text("utf-8").splitlines()]
    short = [{key: row[key] for key in ("step", "loss", "learning_rate", "seconds")} for row in rows]
    (out / "projector.log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short), encoding="utf-8")
    facts = {
        "file": target.name,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "bytes": target.stat().st_size,
        "made_by": "make align-demo (recipes/align-demo.yaml)",
        "settings": manifest["settings"],
        "steps": manifest["steps"],
        "rows": manifest["rows"],
        "seconds": round(manifest["seconds"]),
        "last_50_steps_mean_loss": round(sum(row["loss"] for row in rows[-50:]) / len(rows[-50:]), 4),
    }
    (out / "projector.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: facts[key] for key in ("file", "sha256", "bytes", "steps", "last_50_steps_mean_loss")}))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
