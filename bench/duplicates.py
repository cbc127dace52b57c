"""How many planted copies of real pictures the duplicate steps find, kind by kind, and what they take by mistake.

    python bench/duplicates.py photos/ emoji/ demo/pool/part-0000.parquet --work /tmp/duplicates --json

Each argument is a folder of pictures or a Parquet file with a column `image`; NAME=PATH puts several under one
name. From the pictures of each name, exact copies apart, equally many originals are drawn (fixed seed), and of every
original one copy of each kind is made: compressed again, resized, cropped, recoloured, turned … (`CHANGES`). For each
kind the steps see the untouched pictures and the copies of that kind alone, so that one copy does not lead to another:

- recall: share of the copies that are in one group with their original, so that one of the two goes
- precise: of copies that go, the share whose twin is their own original (or has the same pixels)
- untouched: how many of the untouched pictures go, exact copies apart. `--sheets FOLDER` draws pairs of them to look at

Exact copies are checked against digests made here, with nothing but Pillow: of the bytes and of the decoded pixels.
The embedder is the demo's; vectors are kept in `--work`, a second run takes minutes less.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

SEED = 0
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
EMBEDDER = {"use": "lite0_minilm", "side": 192}
CLUSTER = {"use": "cluster", "rows_per_group": 60}
THRESHOLDS = (0.98, 0.97, 0.95, 0.93, 0.90, 0.86)
STARS = (0.95, 0.93, 0.90)
WHITE = (255, 255, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="[NAME=]PATH")
    parser.add_argument("--originals", type=int, default=600)
    parser.add_argument("--work", type=Path, default=None, help="where pictures and vectors are kept; default: nowhere")
    parser.add_argument("--sheets", type=Path, default=None, help="folder for pictures of what goes of the untouched")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        work = args.work or Path(passing)
        truth = plant(args.inputs, args.originals, work / "pictures")
        found = measure(work, truth)
        if args.sheets:
            draw_sheets(work, truth, args.sheets)
    report(found, args.json)


# What is planted


def saved(form: str, **settings: Any) -> Callable[[Image.Image], tuple[bytes, str]]:
    def encode(picture: Image.Image) -> tuple[bytes, str]:
        data = io.BytesIO()
        picture.save(data, form, **settings)
        return data.getvalue(), form.lower()

    return encode


def edited(change: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], tuple[bytes, str]]:
    """Changed pixels, saved without loss."""
    return lambda picture: saved("PNG")(change(picture))


def resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    def change(picture: Image.Image) -> Image.Image:
        size = [max(1, round(length * factor)) for length in picture.size]
        return picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)

    return change


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """So much of width and of height goes, half of it on each side, at least one pixel in all."""

    def change(picture: Image.Image) -> Image.Image:
        cut = [max(1, round(length * share)) if length > 1 else 0 for length in picture.size]
        left, top = cut[0] // 2, cut[1] // 2
        return picture.crop((left, top, picture.width - cut[0] + left, picture.height - cut[1] + top))

    return change


def hue_turned(picture: Image.Image) -> Image.Image:
    """By 30 of 360 degrees."""
    values = np.array(picture.convert("HSV"))
    values[..., 0] += np.uint8(round(256 * 30 / 360))  # runs over at 256, as hues do
    return Image.fromarray(values, "HSV").convert("RGB")


def bordered(picture: Image.Image) -> Image.Image:
    return ImageOps.expand(picture, max(1, round(0.05 * max(picture.size))), (40, 40, 40))


def written_on(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    size = max(8, picture.height // 8)
    place = (picture.width // 20, picture.height - size - picture.height // 20)
    ImageDraw.Draw(picture).text(
        place, "example.org", (0, 0, 0), ImageFont.load_default(size), stroke_width=1, stroke_fill=WHITE
    )
    return picture


CHANGES: dict[str, Callable[[Image.Image], tuple[bytes, str]]] = {
    "PNG, same pixels": saved("PNG"),
    "JPEG q80": saved("JPEG", quality=80),
    "JPEG q50": saved("JPEG", quality=50),
    "WebP q80": saved("WEBP", quality=80),
    "resized 75 %": edited(resized(0.75)),
    "resized 150 %": edited(resized(1.5)),
    "cropped 2 %": edited(cropped(0.02)),
    "cropped 5 %": edited(cropped(0.05)),
    "cropped 10 %": edited(cropped(0.10)),
    "brighter by 20 %": edited(lambda picture: ImageEnhance.Brightness(picture).enhance(1.2)),
    "darker by 20 %": edited(lambda picture: ImageEnhance.Brightness(picture).enhance(0.8)),
    "hue by 30 degrees": edited(hue_turned),
    "grey": edited(lambda picture: ImageOps.grayscale(picture).convert("RGB")),
    "border of 5 %": edited(bordered),
    "words on it": edited(written_on),
    "mirrored": edited(ImageOps.mirror),
    "turned by 90 degrees": edited(lambda picture: picture.transpose(Image.Transpose.ROTATE_90)),
}


def plant(inputs: list[str], originals: int, folder: Path) -> dict[str, Any]:
    """Write all pictures into `folder`, and say what they are: `{"rows": {id: [name, bytes digest, pixels digest]},
    "copies": {id: [kind, id of the original]}}`."""
    known = folder.with_suffix(".json")
    if known.exists():
        told: dict[str, Any] = json.loads(known.read_text())
        return told
    rows: dict[str, list[str]] = {}
    for number, (name, data, suffix) in enumerate(gathered(inputs)):
        picture = laid_on_white(data)
        if picture is None:
            continue
        id = f"{name}/{number:06}{suffix}"
        write(folder, id, data)
        rows[id] = [name, hashlib.sha256(data).hexdigest(), pixels_digest(picture)]
    first = {row[2]: id for id, row in sorted(rows.items(), reverse=True)}  # pixels -> the id that `exact` keeps
    distinct: dict[str, list[str]] = {}
    for id in sorted(first.values()):
        distinct.setdefault(rows[id][0], []).append(id)
    copies: dict[str, list[str]] = {}
    for ids in distinct.values():
        for id in random.Random(SEED).sample(ids, min(len(ids), originals // len(distinct))):
            picture = laid_on_white((folder / id).read_bytes())
            assert picture
            for at, (kind, change) in enumerate(CHANGES.items()):
                data, form = change(picture)
                copy = f"copies/{at:02}/{id.replace('/', '-').rsplit('.', 1)[0]}.{form}"
                write(folder, copy, data)
                copies[copy] = [kind, id]
    told = {"rows": rows, "copies": copies}
    known.write_text(json.dumps(told))
    return told


def gathered(inputs: list[str]) -> Iterator[tuple[str, bytes, str]]:
    """(name, bytes, suffix) of every picture, in order."""
    import pyarrow.parquet

    for words in inputs:
        name, _, place = words.rpartition("=")
        path = Path(place)
        name = name or path.stem
        if path.suffix == ".parquet":
            for cell in pyarrow.parquet.read_table(path, columns=["image"])["image"].to_pylist():
                data = cell["bytes"] if isinstance(cell, dict) else cell
                yield name, data, "." + str(Image.open(io.BytesIO(data)).format).lower()
        else:
            for file in sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES):
                yield name, file.read_bytes(), file.suffix.lower()


def write(folder: Path, id: str, data: bytes) -> None:
    path = folder / id
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_suffix(".txt").write_text("a picture")


def laid_on_white(data: bytes) -> Image.Image | None:
    """RGB, upright, transparent parts white; the plain way, apart from the package's own. None: not a picture."""
    try:
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    except OSError:
        return None
    white = Image.new("RGBA", picture.size, WHITE)
    return Image.alpha_composite(white, picture).convert("RGB")


def pixels_digest(picture: Image.Image) -> str:
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


# What is found


def ways() -> dict[str, list[dict[str, Any]]]:
    """Name -> the steps; `dedup` finds the columns of `cluster` in the pool."""
    found: dict[str, list[dict[str, Any]]] = {"exact": [{"use": "exact"}]}
    found |= {f"perceptual {bits}": [{"use": "perceptual", "bits": bits}] for bits in (0, 4, 8)}
    found |= {f"dedup {above:g}": [dedup(above)] for above in THRESHOLDS}
    found |= {f"dedup {above:g} star": [dedup(above, linking="star")] for above in STARS}
    return found | {"perceptual 4, dedup 0.95": [{"use": "perceptual", "bits": 4}, dedup(0.95)]}


def dedup(above: float, **settings: Any) -> dict[str, Any]:
    return {"use": "dedup", "above": above, "curve_from": above, **settings}


def pool_of(work: Path) -> Any:
    from bunny.curate import open_pool
    from bunny.pipeline.curating import curate

    if not (work / "run/pool/pool.json").exists():
        source = {"use": "folder", "path": str(work / "pictures")}
        curate(source, steps=[{"use": "exact"}], embedder=EMBEDDER, output=work / "run")
    return open_pool(work / "run/pool")[0]


def measure(work: Path, truth: dict[str, Any]) -> dict[str, Any]:
    pool = pool_of(work)
    ids = np.asarray(pool["id"]).astype(str)
    copies = truth["copies"]
    assert set(ids.tolist()) == {*truth["rows"], *copies}, "some pictures were not read"
    kind = np.array([copies[id][0] if id in copies else "" for id in ids.tolist()])
    first = twins(pool.take(kind == ""), [{"use": "exact"}])
    alone = np.flatnonzero(kind == "")[first == np.arange(len(first))]
    found: dict[str, Any] = {"exact": exactness(ids[kind == ""], first, truth), "untouched": {}, "copies": {}}
    here = clustered(pool, alone)
    for way, steps in ways().items():
        gone = np.flatnonzero(twins(here, steps) != np.arange(len(alone)))
        by = Counter(id.split("/")[0] for id in ids[alone][gone].tolist())
        found["untouched"][way] = {"gone": len(gone), "of": len(alone), "by": dict(sorted(by.items()))}
    for each in CHANGES:
        rows = np.sort(np.concatenate([alone, np.flatnonzero(kind == each)]))
        here = clustered(pool, rows)
        found["copies"][each] = {way: of_copies(ids[rows], twins(here, steps), copies) for way, steps in ways().items()}
        print(each, {way: one["recall"] for way, one in found["copies"][each].items()}, file=sys.stderr)
    return {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "commit": commit(),
        "embedder": EMBEDDER,
        "pictures": dict(Counter(row[0] for row in truth["rows"].values())),
        "originals": dict(Counter(id.split("/")[0] for id in {row[1] for row in copies.values()})),
        **found,
    }


def clustered(pool: Any, rows: Any) -> Any:
    """The pool of some rows, with the columns of `cluster`."""
    from bunny.curate import select

    chosen = np.zeros(len(pool), dtype=bool)
    chosen[rows] = True
    some = pool.take(chosen)
    return some.with_columns(select(some, [CLUSTER], SEED).runs[-1].decision.columns)


def twins(pool: Any, steps: list[dict[str, Any]]) -> Any:
    """(N,) the row that stays in each row's place, itself if it stays."""
    from bunny.curate import select

    stays = np.arange(len(pool))
    for run in select(pool, steps, SEED).runs:
        stays[run.rows] = run.rows[np.where(run.decision.keep, np.arange(len(run.rows)), run.decision.twin)]
    while (stays[stays] != stays).any():  # what stood for it went in a later step
        stays = stays[stays]
    return stays


def exactness(ids: Any, stays: Any, truth: dict[str, Any]) -> dict[str, Any]:
    """What `exact` makes of the untouched pictures, beside the digests made here."""
    digests = [truth["rows"][id] for id in ids.tolist()]
    gone = np.flatnonzero(stays != np.arange(len(ids))).tolist()
    return {
        "gone": len(gone),
        "of": len(ids),
        "with other pixels than their twin": sum(digests[row][2] != digests[stays[row]][2] for row in gone),
        "copies by bytes": len(ids) - len({one[1] for one in digests}),
        "copies by pixels": len(ids) - len({one[2] for one in digests}),
    }


def of_copies(ids: Any, stays: Any, copies: dict[str, list[str]]) -> dict[str, Any]:
    """Recall, by name of the original too, and the share of twins that are the original."""
    place = {id: row for row, id in enumerate(ids.tolist())}
    found: dict[str, list[bool]] = {}
    right = []
    for id, row in place.items():
        if id in copies:
            original = place[copies[id][1]]
            found.setdefault(copies[id][1].split("/")[0], []).append(bool(stays[row] == stays[original]))
            if stays[row] != row:
                right.append(bool(stays[row] == original))
    every = [one for some in found.values() for one in some]
    by = {name: round(float(np.mean(some)), 3) for name, some in sorted(found.items())}
    precise = round(float(np.mean(right)), 3) if right else None
    return {"recall": round(float(np.mean(every)), 3), "by": by, "precise": precise}


def draw_sheets(work: Path, truth: dict[str, Any], folder: Path, count: int = 60) -> None:
    """A picture for each way: pairs of the untouched, drawn at random, what goes beside what stays."""
    pool = pool_of(work)
    pool = pool.take(np.array([id in truth["rows"] for id in np.asarray(pool["id"]).astype(str).tolist()]))
    first = twins(pool, [{"use": "exact"}])
    pool = clustered(pool, np.flatnonzero(first == np.arange(len(first))))
    ids = np.asarray(pool["id"]).astype(str)
    folder.mkdir(parents=True, exist_ok=True)
    for way, steps in ways().items():
        stays = twins(pool, steps)
        gone = np.flatnonzero(stays != np.arange(len(ids))).tolist()
        gone = random.Random(SEED).sample(gone, min(count, len(gone)))
        sheet = Image.new("RGB", (6 * 230, 10 * 115), (200, 200, 200))
        for at, row in enumerate(sorted(gone)):
            for side, one in enumerate((row, stays[row])):
                picture = laid_on_white((work / "pictures" / ids[one]).read_bytes())
                assert picture
                picture.thumbnail((100, 100))
                sheet.paste(picture, (at % 6 * 230 + side * 105 + 8, at // 6 * 115 + 12))
            ImageDraw.Draw(sheet).text((at % 6 * 230 + 8, at // 6 * 115), str(at), (0, 0, 0))
        sheet.save(folder / f"{way.replace(' ', '-')}.png")


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True)
    return done.stdout.decode().strip() or "unknown"


def report(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=1))
        return
    names = list(ways())
    print(" " * 22 + " ".join(f"{name[-9:]:>9}" for name in names))
    for kind, some in found["copies"].items():
        print(f"{kind:22}" + " ".join(f"{some[name]['recall']:9.0%}" for name in names))
    print(f"{'untouched that go':22}" + " ".join(f"{found['untouched'][name]['gone']:9}" for name in names))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
