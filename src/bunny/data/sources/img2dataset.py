"""What img2dataset downloads: tars, and beside each a Parquet file with a row for every link, got or not.

In: `00000.tar` + `00000.parquet` (+ `00000_stats.json`). Out: a sample or a reason for every row of the Parquet file,
in its order, joined by key and never by place. A link that failed is rejected with img2dataset's own status and
message; so is a row without its picture, and a picture without its row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError, nearest
from bunny.core.log import log
from bunny.core.types import ImageRef, Sample
from bunny.data.containers import ImageError, tar_index
from bunny.data.sources import _columns
from bunny.data.sources._rows import BadRow, first_caption, is_file, pair, plain
from bunny.data.sources._shards import labels
from bunny.data.sources.webdataset import WebDataset, keys, picture_of, text_of, true_id


class Img2dataset(WebDataset):
    """`{use: img2dataset, path: laion/}`"""

    id: str | None = None  # column whose values are the ids, e.g. `uid`; default: by `ids`, from the key
    statuses: tuple[str, ...] = ("success",)  # what the column `status` says of a link that was got

    def rows(self) -> Iterator[tuple[str, Any]]:
        pieces = self.pieces()
        for path, label in zip(pieces, labels(pieces), strict=True):
            if path.suffix == ".tar":
                yield from self._rows_of(path, label)
            else:
                yield str(path), BadRow("missing_shard", f"no {path.stem}.tar beside {path.name}; get it again")

    def sample(self, where: str, raw: Any) -> Sample:
        path, id, members, row, problem = raw
        try:
            _check_status(row, self.statuses)
            if members is None:
                raise BadRow("no_picture", f"`{path.name}` has no such key{problem and f'; it {problem}'}")
            picture = picture_of(members, row)
            captions = (row.get(self.caption) if found else text_of(path, members) for found in (True, False))
            words = first_caption(captions, self.max_caption_chars)
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        except ImageError as error:
            raise BadRow(error.reason, error.detail, id) from None
        meta = {key: plain(value) for key, value in row.items() if value is not None}
        return pair(id, (ImageRef(str(path), picture),), words, self.name or path.parent.name, meta)

    def _rows_of(self, path: Path, label: str) -> Iterator[tuple[str, Any]]:
        """The rows of one tar and its table."""
        table = path.with_suffix(".parquet")
        if not is_file(table):
            detail = f"no {table.name} beside {path.name}; read it with {{use: webdataset}}, or get the file again"
            yield str(path), BadRow("missing_shard", detail)
            return
        index = tar_index(path)
        inside: dict[str, list[str]] = {}
        for key, members in keys(index):
            inside.setdefault(key, []).extend(members)
        known: set[str] = set()
        got = 0
        try:
            for number, row in self._table_rows(table):
                key = str(row.get("key"))
                got += row.get("status", self.statuses[0]) in self.statuses
                known.add(key)
                id = self._row_id(row, label, key)
                yield f"{table}:{number}", (path, id, inside.get(key), row, index.problem)
        except BadRow as bad:
            yield str(table), BadRow(bad.reason, f"{bad.detail}; the other pictures of {path.name} are left out")
            return
        for key in (key for key in inside if key not in known):
            detail = f"`{table.name}` has no row with this key"
            yield f"{path}:{key}", BadRow("no_row", detail, self._id(label, key))
        yield from self._trouble(path, label, index)
        _check_stats(path, got)

    def _table_rows(self, table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        schema = _columns.schema(table)
        for wanted in ["key", *([self.id] if self.id else [])]:
            if wanted not in schema.names:
                what = f"{table}: no column `{wanted}`; {nearest(wanted, schema.names)}"
                raise UserError(what, fix="read the tars alone with {use: webdataset}, or set `id`")
        columns = [field.name for field in schema if not _columns.is_bytes(field.type, inside=True)]
        for batch in _columns.batches(table, columns):
            for at, row in enumerate(batch.rows()):
                yield batch.first + at, row

    def _row_id(self, row: Mapping[str, Any], label: str, key: str) -> str:
        known = row.get(self.id) if self.id else None
        return self._id(label, true_id(key, row)) if known is None else str(known)

    def pieces(self) -> list[Path]:
        """The tars, and the numbered tables that have none."""
        found = self.files([".tar", ".parquet"])
        tars = {path for path in found if path.suffix == ".tar"}
        tables = [path for path in found if path.suffix == ".parquet" and path.stem.isdecimal()]
        beside = ((table, table.with_suffix(".tar")) for table in tables)
        return sorted(tars | {tar if is_file(tar) else table for table, tar in beside})


def _check_status(row: Mapping[str, Any], good: tuple[str, ...]) -> None:
    """Raises BadRow with img2dataset's own words for a link that was not got."""
    status = row.get("status", good[0])
    if status not in good:
        reason = str(status or "no_status").replace(" ", "_")[:60]
        raise BadRow(reason, str(row.get("error_message") or "")[:300])


def _check_stats(tar: Path, got: int) -> None:
    """A warning if img2dataset counted other successes than its table holds."""
    stats = tar.with_name(f"{tar.stem}_stats.json")
    try:
        counted = json.loads(stats.read_text(encoding="utf-8")).get("successes") if stats.is_file() else None
    except (OSError, ValueError, AttributeError) as error:
        log.warning("%s: cannot be read: %s", stats, _columns.one_line(error))
        return
    if counted is not None and counted != got:
        log.warning("%s counts %s pictures, %s has %d rows of success", stats, counted, f"{tar.stem}.parquet", got)


USE = Img2dataset
