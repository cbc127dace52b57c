"""The records that flow between the stages (ARCHITECTURE.md §3). Frozen, numpy at most, no torch.

A raw image-text pair and an instruction conversation are the same type, `Sample`: a caption is a conversation
whose only turn is the assistant's. So there is one path from any source through curation into training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from bunny.core.protocols import Engine

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]

Role = Literal["system", "user", "assistant"]

IMAGE_MARK = "<image>"
"""Marks, inside a user turn, the place of the sample's next picture."""

IGNORE = -100
"""Label of a position that teaches nothing (PyTorch cross-entropy's ignore_index)."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where a picture is; its pixels are read late, by `bunny.data.images.open_image`.

    path: a picture file, or a container that holds many (Parquet file, webdataset tar).
    member: inside a container, the row number (Parquet) or the member name (tar); empty for a plain file.
    column: inside a Parquet file, the column with the encoded bytes.
    """

    path: str
    member: str = ""
    column: str = "image"

    def __str__(self) -> str:
        return f"{self.path}#{self.member}" if self.member else self.path


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `text` may hold `<image>` marks (user turns only)."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One training or curation sample: pictures, turns, where it came from.

    id: unique inside its pool. images: in order of their `<image>` marks. source: name of the set it came from.
    meta: whatever else the source knows (title, keywords, words, url …); read-only.
    """

    id: str
    images: tuple[ImageRef, ...]
    turns: tuple[Turn, ...]
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @property
    def text(self) -> str:
        """The assistant's words, joined: the text half of an image-text pair."""
        return " ".join(turn.text for turn in self.turns if turn.role == "assistant")

    @staticmethod
    def pair(id: str, image: ImageRef, caption: str, source: str = "", **meta: Any) -> Sample:
        """An image-text pair: a conversation of one answer."""
        return Sample(id, (image,), (Turn("assistant", caption),), source, MappingProxyType(meta))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot become a sample: never dropped in silence, always counted and listed."""

    id: str
    where: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What an `Embedder` says of a batch of B pairs. Rows are unit length; NaN where there is nothing to embed.

    image, text: (B, D) float32 in one joint space: their cosine is image-text likeness. visual: (B, V) float32 for
    picture-to-picture likeness (clusters, duplicates), or None where `image` serves for that too (CLIP, SigLIP).
    """

    image: FloatArray
    text: FloatArray
    visual: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings, row-aligned with `ids`. Rows are unit length; a sample without a part has a NaN row.

    ids: (N,) str. image: (N, D) float16 or float32. text: (N, D) in the same space, or None. model: what made them.
    visual: (N, V) for picture-to-picture likeness, or None where `image` serves for that too.
    """

    ids: npt.NDArray[np.str_]
    image: FloatArray
    text: FloatArray | None
    model: str
    visual: FloatArray | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.image) or (self.text is not None and len(self.text) != len(self.ids)):
            raise ValueError(f"{len(self.ids)} ids, {len(self.image)} image rows: they must be row-aligned")


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """Vectors that exist already. path: a `.npy` file of (M, D) float16 or float32 rows, of any length; rows: (N,)
    int64 row numbers in it, aligned with what the source reads, -1 where a row has none; None: 0 .. N-1."""

    path: Path
    rows: IntArray | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of heavy work, for any engine and any machine that sees the same files.

    function: `package.module:name` of a module-level function, called as `function(**arguments, output=output)`.
    arguments: JSON-able. output: the file or folder that it publishes by one rename; the task is done if it exists.
    """

    function: str
    arguments: Mapping[str, Any]
    output: Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where heavy steps work: a folder for their files (kept: finished work is not done again) and what runs tasks."""

    folder: Path
    engine: Engine


@dataclass(frozen=True, slots=True)
class Pool:
    """Row-aligned named columns over N samples: what curation steps read and add to.

    columns: name -> (N,) or (N, D) array. Always there: `id`. Usual: `image` and `text` (N, D) unit vectors of one
    joint space, `visual` (N, V) unit vectors of the picture alone, `cluster` (N,) int, `pair_cosine`,
    `centre_cosine` (N,) float32, `caption` (N,) str, `sha256` (N,) str. Large pools hold vectors and texts as
    `bunny.curate.columns.Rows` and `Texts`, which are read from disk block by block.
    ordered: whether the rows are known to stand in order of their ids. place: where heavy steps may work.
    """

    columns: Mapping[str, Any]
    ordered: bool = False
    place: Place | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def take(self, rows: IntArray | BoolArray) -> Pool:
        """The pool of the given rows (indices or mask), in that order."""
        ordered = self.ordered and rows.dtype == np.bool_
        known: dict[int, IntArray] = {}  # lazy columns with one index share the new one too: 8 bytes a row, not each
        return Pool({name: _taken(column, rows, known) for name, column in self.columns.items()}, ordered, self.place)

    def with_columns(self, new: Mapping[str, npt.NDArray[Any]]) -> Pool:
        """The pool with columns added or replaced."""
        return Pool({**self.columns, **new}, self.ordered, self.place)


def _taken(column: Any, rows: IntArray | BoolArray, known: dict[int, IntArray]) -> Any:
    return column.take(rows, known) if hasattr(column, "pieces") else column[rows]


def one_reason(dropped: BoolArray, reason: str) -> npt.NDArray[np.object_]:
    """(N,) object str: the reason where dropped, else empty; one string object for all rows."""
    reasons = np.full(len(dropped), "", dtype=object)
    reasons[dropped] = reason
    return reasons


@dataclass(frozen=True, slots=True)
class Decision:
    """What one curation step says of a pool of N rows.

    keep: (N,) bool. reason: (N,) object str, empty where kept. twin: (N,) int64, for a dropped row the kept row
    (index in the same pool) that stands for it, -1 where there is none. columns: new columns for all N rows.
    notes: figures about the step as a whole (estimates, counts), for the summary and the report.
    """

    keep: BoolArray
    reason: npt.NDArray[np.object_]
    twin: IntArray
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=lambda: _NOTHING)
    notes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @staticmethod
    def drop(dropped: BoolArray, reason: str, twin: IntArray | None = None, **columns: npt.NDArray[Any]) -> Decision:
        """The decision that drops the marked rows, all for one reason, and keeps the rest."""
        reasons = one_reason(dropped, reason)
        nobody = np.full(len(dropped), -1, dtype=np.int64)
        return Decision(~dropped, reasons, nobody if twin is None else np.where(dropped, twin, -1), columns)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One conversation as token ids with its labels, built together.

    ids: (T,) int64; an image's place is a run of `image_token_id`. labels: (T,) int64, `IGNORE` where nothing is
    learnt; NOT shifted (labels[t] is ids[t] or IGNORE). images: the pictures, in the order of their runs. cut: whether
    its end is missing.
    """

    id: str
    ids: IntArray
    labels: IntArray
    images: tuple[ImageRef, ...] = ()
    cut: bool = False

    def first(self, tokens: int) -> TokenRow:
        """The row's first so many tokens."""
        if len(self.ids) <= tokens:
            return self
        return replace(self, ids=self.ids[:tokens], labels=self.labels[:tokens], cut=True)

    @property
    def learns(self) -> int:
        """Number of label tokens that can be predicted (the first token has no predecessor)."""
        return int((self.labels[1:] != IGNORE).sum())


@dataclass(frozen=True, slots=True)
class Question:
    """One thing asked of a model in evaluation: prompt, pictures, the gold answers, and how it is grouped.

    prompt: user text without `<image>` marks; the pictures come first. group: image or cluster id for clustered
    intervals. meta: what the scorer needs (category, choices, …).
    """

    id: str
    prompt: str
    images: tuple[ImageRef, ...]
    gold: tuple[str, ...]
    group: str = ""
    meta: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to a question. `error` is set, and `text` empty, if it could not be asked."""

    id: str
    text: str
    error: str = ""


ParseStatus = Literal["ok", "fallback", "guessed", "empty", "malformed"]


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer read by a benchmark's parser: the value it stands for and how sure that reading is.

    status: read as asked; read, but not in the asked form; drawn at random by the benchmark's own script because it
    could not be read; nothing there; not readable.
    """

    value: str
    status: ParseStatus = "ok"


@dataclass(frozen=True, slots=True)
class Interval:
    """A score with its 95 % interval, both in the benchmark's own unit (usually per cent)."""

    score: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One benchmark's outcome: headline score with interval, further scores, and how answers were read.

    clusters: number of question groups (pictures) behind the intervals. points: (n,) float64, each question's credit
    from 0 to 1, in the benchmark's order. draws: (B,) float64, the headline on B resamples of the clusters, the same
    resamples for every set of answers, so that two results can be compared pair by pair.
    """

    task: str
    headline: Interval
    n: int
    scores: Mapping[str, Interval] = field(default_factory=lambda: _NOTHING)
    statuses: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    baselines: Mapping[str, Interval] = field(default_factory=lambda: _NOTHING)
    clusters: int = 0
    points: FloatArray | None = field(default=None, repr=False, compare=False)
    draws: FloatArray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How answers are produced. temperature 0 is greedy."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    stop: Sequence[str] = ()
