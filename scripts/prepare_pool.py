"""Make the demo pool and the held-out pictures from two Debian packages.

    apt-get install openclipart-png openclipart-svg          # version 1:0.18+dfsg-19, public domain
    PYTHONPATH=src python scripts/prepare_pool.py \\
        --png-root /usr/share/openclipart/png --svg-root /usr/share/openclipart/svg --out demo/pool

In: pictures (png package), title, keywords and description (the RDF inside the files of the svg package, joined by
relative path), `demo/heldout_ids.json` (which pictures are held out, made by scripts/choose_heldout.py) and
`demo/words.yaml`. Out: `demo/pool/part-*.parquet` and `demo/heldout.parquet`.

The noise stays in: exact duplicates, titles of whole series, keywords such as "hash(0x8a3cd28)". Three things are
left out: empty keywords, e-mail addresses, and pictures whose own metadata claims a licence other than public domain.
Needs pillow, pyarrow, tqdm and, for one picture of 20,990 x 29,700 pixels, 6 GB of memory. Takes about 4 minutes.
The same packages with the same pillow and pyarrow give the same bytes.
"""

import argparse
import hashlib
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from bunny.data.words import WordList, load_words

LONGEST_SIDE = 128  # pixels; smaller pictures keep their size
WEBP_QUALITY = 85
SHARD_BYTES = 4_300_000  # aim for the pictures of one shard; hosts of git repositories like files below 5 MB
LICENSE = "CC-PDDC"  # SPDX name of the Creative Commons Public Domain Dedication of the packages
PUBLIC_DOMAIN = ("", "http://web.resource.org/cc/PublicDomain", "http://creativecommons.org/licenses/publicdomain/")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
DC = "{http://purl.org/dc/elements/1.1/}"
CC = "{http://web.resource.org/cc/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("title", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("description", pa.string()),
        ("category", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
    ]
)


@dataclass(frozen=True)
class Picture:
    """One row of a shard."""

    id: str
    image: bytes
    title: str
    keywords: tuple[str, ...]
    description: str
    category: str
    source: str
    license: str


def main() -> None:
    """Read the packages, split off the held-out pictures, write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--png-root", type=Path, required=True)
    parser.add_argument("--svg-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pool's shards, e.g. demo/pool")
    args = parser.parse_args()
    demo = args.out.parent
    twins_of: dict[str, list[str]] = json.loads((demo / "heldout_ids.json").read_text(encoding="utf-8"))
    pictures = list(read_pictures(args.png_root, args.svg_root))
    away = {*twins_of, *(twin for twins in twins_of.values() for twin in twins)}
    write_shards([picture for picture in pictures if picture.id not in away], args.out)
    held = [picture for picture in pictures if picture.id in twins_of]
    write_heldout(held, twins_of, load_words(demo / "words.yaml"), demo / "heldout.parquet")
    print(f"pool {len(pictures) - len(away)}, held out {len(held)}, twins of held-out left out {len(away) - len(held)}")


def read_pictures(png_root: Path, svg_root: Path) -> Iterator[Picture]:
    """Every picture of the package that is public domain, in the order of the paths."""
    Image.MAX_IMAGE_PIXELS = None  # the package is trusted, and two of its stop signs have 623 million pixels
    for svg in tqdm(sorted(svg_root.rglob("*.svg")), unit="picture"):
        name = svg.relative_to(svg_root).as_posix().removesuffix(".svg")
        title, keywords, description, license_url = read_metadata(svg)
        if license_url not in PUBLIC_DOMAIN:
            tqdm.write(f"left out {name}: its metadata says {license_url}")
            continue
        yield Picture(
            id=name,
            image=encode(png_root / f"{name}.png"),
            title=title,
            keywords=keywords,
            description=description,
            category=name.rpartition("/")[0],
            source=f"openclipart-png: usr/share/openclipart/png/{name}.png",
            license=LICENSE,
        )


def read_metadata(svg: Path) -> tuple[str, tuple[str, ...], str, str]:
    """Title, keywords, description and licence address of the first RDF work in an svg file."""
    work = ElementTree.parse(svg).getroot().find(f".//{CC}Work")
    if work is None:
        return "", (), "", ""
    keywords = tuple(word for item in work.findall(f"{DC}subject//{RDF}li") if (word := clean(item)))
    license_node = work.find(f"{CC}license")
    url = "" if license_node is None else license_node.get(f"{RDF}resource", "")
    return clean(work.find(f"{DC}title")), keywords, clean(work.find(f"{DC}description")), url


def clean(node: ElementTree.Element | None) -> str:
    """The text inside a node on one line, without e-mail addresses."""
    text = "" if node is None else " ".join(node.itertext())
    return " ".join(EMAIL.sub("", text).split())


def encode(png: Path) -> bytes:
    """The picture on white, its longest side at most LONGEST_SIDE, as WebP."""
    with Image.open(png) as picture:
        picture.load()
        colours = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    factor = max(colours.size) // (8 * LONGEST_SIDE)
    if factor > 1:  # a cheap first step, so that composing a huge picture needs no second copy of it
        colours = colours.reduce(factor)
    white = Image.new("RGBA", colours.size, "white")
    white.alpha_composite(colours)
    small = white.convert("RGB")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=WEBP_QUALITY, method=6)
    return out.getvalue()


def write_shards(pictures: list[Picture], out: Path) -> None:
    """Shards of equal length, in an order that mixes the folders, so that one shard is a fair sample of all."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("part-*.parquet"):
        old.unlink()
    mixed = sorted(pictures, key=lambda picture: hashlib.sha256(picture.id.encode()).hexdigest())
    shards = math.ceil(sum(len(picture.image) for picture in mixed) / SHARD_BYTES)
    for k in range(shards):
        rows = mixed[k * len(mixed) // shards : (k + 1) * len(mixed) // shards]
        write_table(pa.Table.from_pylist([asdict(row) for row in rows], COLUMNS), out / f"part-{k:04d}.parquet")


def write_heldout(pictures: list[Picture], twins_of: dict[str, list[str]], words: WordList, path: Path) -> None:
    """The held-out pictures with the words they show, the words they surely do not, and their twins' ids."""
    rows = []
    for p in pictures:
        shown = words.words_of(p.title, p.keywords, p.description, p.category, Path(p.id).name)
        absent = [word for word in words.words if words.may_ask_no(word, shown)]
        rows.append(asdict(p) | {"words": shown, "absent": absent, "twins": twins_of[p.id]})
    schema = COLUMNS
    for name in ("words", "absent", "twins"):
        schema = schema.append(pa.field(name, pa.list_(pa.string())))
    write_table(pa.Table.from_pylist(rows, schema), path)


def write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=9, use_dictionary=["category", "license"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{digest}  {path.name}  {table.num_rows} rows  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
