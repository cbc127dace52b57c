"""Views over tables of tensors: renamed, cut, lengthened, cast, with a LoRA added, averaged.

In: tables. Out: a table whose rows are computed when they are read. Arithmetic goes element by
element (a LoRA's product: row by row), so reading in pieces gives what reading at once gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from bunny.core.errors import UserError, nearest
from bunny.core.log import log
from bunny.model.tensors import TensorInfo, TensorTable


class Renamed:
    """The tensors that `names` (new name -> old name) lists, under their new names; the others are left out."""

    def __init__(self, table: TensorTable, names: Mapping[str, str]) -> None:
        for old in names.values():
            _known(table, old)
        self.table, self.names = table, dict(names)
        self.info = {new: table.info[old] for new, old in self.names.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        return self.table.read(self.names[name], start, stop)


class Cut:
    """`rows` (name -> n) says of which tensors only the first n rows are kept."""

    def __init__(self, table: TensorTable, rows: Mapping[str, int]) -> None:
        self.table, self.info = table, dict(table.info)
        for name, count in rows.items():
            info = _known(table, name)
            if not info.shape or not 0 <= count <= info.rows:
                raise UserError(f"{name}: {count} rows are wanted of {list(info.shape)}")
            self.info[name] = replace(info, shape=(count, *info.shape[1:]))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        start, stop = _bounds(self.info[name], start, stop)
        return self.table.read(name, start, stop)


class WithRows:
    """The tensor `name` with the rows `extra` after its own, in its own dtype."""

    def __init__(self, table: TensorTable, name: str, extra: torch.Tensor) -> None:
        info = _known(table, name)
        if not info.shape or tuple(extra.shape[1:]) != info.shape[1:]:
            raise UserError(f"{name}: rows of {list(extra.shape)} do not fit {list(info.shape)}")
        self.table, self.name, self.extra = table, name, extra.detach().to(info.dtype)
        self.info = {**table.info, name: replace(info, shape=(info.rows + len(extra), *info.shape[1:]))}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        if name != self.name:
            return self.table.read(name, start, stop)
        own = self.table.info[name].rows
        start, stop = _bounds(self.info[name], start, stop)
        added = self.extra[max(0, start - own) : max(0, stop - own)]
        return torch.cat([self.table.read(name, start, min(stop, own)), added]) if start < own else added.clone()


class Cast:
    """Tensors in other dtypes: `dtypes` (name -> dtype). Raises UserError when a number does not fit float16."""

    def __init__(self, table: TensorTable, dtypes: Mapping[str, torch.dtype]) -> None:
        self.table = table
        self.info = {**table.info, **{name: replace(_known(table, name), dtype=dtypes[name]) for name in dtypes}}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        stored = self.table.read(name, start, stop)
        cast = stored.to(self.info[name].dtype)
        if cast.dtype == torch.float16 != stored.dtype and cast.isinf().any() and not stored.isinf().any():
            largest = stored.abs().max().item()
            raise UserError(f"{name}: {largest:.4g} does not fit float16", fix="write bfloat16 or float32")
        return cast


class WithLora:
    """W + scaling · B @ A, computed in float32; tensors that `pairs` does not name come as they are.

    pairs: name of W (out, …) -> names of A (r, …) and B (out, r) in `adapter`. scaling: alpha / r, one for all or by
    name of W. dtype: of the sums.
    """

    def __init__(
        self,
        base: TensorTable,
        adapter: TensorTable,
        pairs: Mapping[str, tuple[str, str]],
        scaling: float | Mapping[str, float],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.base, self.adapter, self.pairs = base, adapter, dict(pairs)
        self.scaling = scaling if isinstance(scaling, Mapping) else dict.fromkeys(pairs, scaling)
        self._down = ("", torch.empty(0))  # the A of the last read: the next rows of the same W need it again
        self.info = dict(base.info)
        for name, (down, up) in self.pairs.items():
            weight, a, b = _known(base, name), _known(adapter, down), _known(adapter, up)
            fits = len(a.shape) > 1 and a.shape[1:] == weight.shape[1:] and b.shape[:1] == weight.shape[:1]
            if not fits or a.rows != b.row_elements:
                shapes = f"A {list(a.shape)}, B {list(b.shape)}"
                raise UserError(
                    f"{name}: {shapes} do not fit {list(weight.shape)}", fix="give the base model it was trained on"
                )
            self.info[name] = replace(weight, dtype=dtype)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        weight = self.base.read(name, start, stop)
        if name not in self.pairs:
            return weight
        down, up = self.pairs[name]
        if self._down[0] != down:
            self._down = (down, self.adapter.read(down).float().flatten(1))
        a = self._down[1]  # (r, in)
        b = self.adapter.read(up, start, stop).float().flatten(1)  # (rows, r)
        added = (b @ a).mul_(self.scaling[name]).view(weight.shape)
        return added.add_(weight).to(self.info[name].dtype)


class Averaged:
    """The weighted sum of tables of equal names and shapes, in float32 (float64 where an input is).

    Integers and truth values must be the same everywhere and come as they are. Weights that do not sum to one are
    taken as given, with a warning.
    """

    def __init__(self, tables: Sequence[TensorTable], weights: Sequence[float]) -> None:
        assert len(tables) == len(weights) > 0
        if abs(sum(weights) - 1) > 1e-6:
            log.warning("the weights sum to %g, not to 1: taken as given", sum(weights))
        self.tables, self.weights = tuple(tables), tuple(weights)
        self.info = {name: self._describe(name) for name in tables[0].info}

    def _describe(self, name: str) -> TensorInfo:
        infos = [_known(table, name) for table in self.tables]
        dtypes = {info.dtype for info in infos}
        if len({info.shape for info in infos}) > 1:
            raise UserError(f"{name}: of different shapes: " + ", ".join(str(list(info.shape)) for info in infos))
        if all(dtype.is_floating_point for dtype in dtypes):
            return replace(infos[0], dtype=torch.float64 if torch.float64 in dtypes else torch.float32)
        if len(dtypes) > 1:
            raise UserError(f"{name}: of kinds that cannot be averaged: " + ", ".join(sorted(map(str, dtypes))))
        return infos[0]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        dtype = self.info[name].dtype
        first = self.tables[0].read(name, start, stop)
        if not dtype.is_floating_point:
            if not all(torch.equal(first, table.read(name, start, stop)) for table in self.tables[1:]):
                raise UserError(f"{name}: whole numbers that differ between the models cannot be averaged")
            return first
        total = first.to(dtype) * self.weights[0]
        for table, weight in zip(self.tables[1:], self.weights[1:], strict=True):
            # two roundings, not one fused: a fused sum would depend on where a piece of rows begins
            total += table.read(name, start, stop).to(dtype) * weight
        return total


def _known(table: TensorTable, name: str) -> TensorInfo:
    if name not in table.info:
        raise UserError(f"no tensor is called {name}", fix=nearest(name, list(table.info)[:2000]))
    return table.info[name]


def _bounds(info: TensorInfo, start: int, stop: int | None) -> tuple[int, int]:
    first, last, _ = slice(start, stop).indices(info.rows)
    return first, max(first, last)
