"""Objects that training never names: `bunny eval hold-out`.

In: the words file, the named pictures of the benchmarks, the pool. Out: a folder with the words file and the pool of a
training that knows nothing of the held-out objects: neither rules for their names, nor any picture whose title,
keywords, description, folder or file name has one of their forms. Benchmarks then ask with `split: unseen`.

The same files, share and seed give the same objects. It reads text: a held-out object that nobody mentions may still
be in a training picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bunny.core.errors import UserError
from bunny.core.seeds import stream
from bunny.core.store import write_atomic
from bunny.data.words import WordList, forms_in, load_words
from bunny.evaluate.pairing import read_words

FEWEST = 2
"""Pictures that an object needs among the benchmarks' to be worth holding out."""
TEXT = ("title", "keywords", "description", "category", "id")
"""Columns of the pool in which a name may stand."""


def hold_out(
    words: Path, pictures: Path, pool: Path | None, output: Path, share: float = 0.25, seed: int = 0
) -> dict[str, Any]:
    """Write `words.yaml`, and with a pool `pool/`, into `output`; what was held out and how many pictures were left.

    Raises UserError if the benchmarks' pictures do not have enough objects to choose from.
    """
    try:
        rules = load_words(words)
    except (OSError, ValueError) as error:
        raise UserError(f"{words}: no words file: {str(error).splitlines()[0]}", fix="see demo/words.yaml") from None
    shown = Counter(word for row in read_words(pictures, {}, ()).present for word in row)
    held = choose(rules, shown, share, seed)
    output.mkdir(parents=True, exist_ok=True)
    tree = yaml.safe_load(words.read_text(encoding="utf-8"))
    write_atomic(output / "words.yaml", yaml.safe_dump(without(tree, held), sort_keys=False, allow_unicode=True))
    facts = {"held_out": held, "words": str(output / "words.yaml"), "pictures": {word: shown[word] for word in held}}
    return {**facts, **(_filtered(pool, output / "pool", rules, held) if pool else {})}


def choose(rules: WordList, shown: Mapping[str, int], share: float, seed: int) -> list[str]:
    """The objects to hold out: of frequent ones as large a share as of rare ones, none that another word implies.

    Objects are sorted by their pictures and taken in groups of 1 / share neighbours; one of each group is drawn.
    """
    broad = {word for rule in rules.words.values() for word in rule.implies}
    known = [word for word in rules.words if word not in broad and shown.get(word, 0) >= FEWEST]
    known.sort(key=lambda word: (-shown[word], word))
    size = round(1 / share) if 0 < share <= 0.5 else 0
    if not size or len(known) < size:
        raise UserError(
            f"share {share} of {len(known)} objects with {FEWEST} pictures or more", fix="0.1 to 0.5 of more objects"
        )
    rng = stream("evaluate.held_out", seed)
    groups = [known[at : at + size] for at in range(0, len(known) - size + 1, size)]
    return sorted(group[int(rng.integers(size))] for group in groups)


def without(tree: Mapping[str, Any], held: Sequence[str]) -> dict[str, Any]:
    """A words file's content without the held-out words and every mention of them by other rules."""
    gone = set(held)
    rules = {
        word: {
            key: [one for one in value if key not in ("implies", "confusable") or one not in gone]
            for key, value in (rule or {}).items()
        }
        for word, rule in tree["words"].items()
        if word not in gone
    }
    return {**tree, "words": rules}


def _filtered(pool: Path, output: Path, rules: WordList, held: Sequence[str]) -> dict[str, Any]:
    """Copy the pool without the rows that name a held-out object; how many were kept and left out."""
    import pyarrow.parquet as pq

    files = sorted(pool.glob("*.parquet")) if pool.is_dir() else [pool]
    if not files:
        raise UserError(f"{pool}: no Parquet files in it", fix="name the pool's folder")
    output.mkdir(parents=True, exist_ok=True)
    kept = left_out = 0
    for path in files:
        table = pq.read_table(path)
        names = [name for name in TEXT if name in table.column_names]
        rows = table.select(names).to_pylist()
        mask = [not forms_in(rules, held, list(_texts(row.values()))) for row in rows]
        pq.write_table(table.filter(mask), output / path.name)
        kept, left_out = kept + sum(mask), left_out + len(mask) - sum(mask)
    return {"pool": str(output), "kept": kept, "left_out": left_out}


def _texts(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        yield from (map(str, value) if isinstance(value, list) else [str(value or "")])
