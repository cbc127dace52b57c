"""The index of rows gives what the template writes, survives kills and damage, and lists all that it leaves out."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bunny.core import publishing
from bunny.core.errors import UserError
from bunny.core.types import IMAGE_MARK, ImageRef, Rejected, Sample, TokenRow, Turn
from bunny.text.template import Template, Writer
from bunny.train import index_making, part_files, picture_parts
from bunny.train.grouping import signed_words
from bunny.train.index import Index, Stock, Supply, index_rows
from bunny.train.rows import RowMaker
from tests.tiny import byte_level, metaspace

RUN = 5
"""Tokens of a picture."""


def writer_of(kind: Any = byte_level) -> Writer:
    tokenizer = kind()
    return Writer(Template.named("chatml"), tokenizer, len(tokenizer) + 7, RUN)


def talk(id: str, pictures: Sequence[ImageRef] = (), words: str = "what?", answer: str = "yes") -> Sample:
    turns = (Turn("user", IMAGE_MARK * len(pictures) + words), Turn("assistant", answer))
    return Sample(id, tuple(pictures), turns, "set")


def same(one: TokenRow, other: TokenRow) -> bool:
    return (
        one.id == other.id
        and one.images == other.images
        and one.cut == other.cut
        and one.ids.dtype == other.ids.dtype == np.int64
        and np.array_equal(one.ids, other.ids)
        and np.array_equal(one.labels, other.labels)
    )


def expected(
    samples: Sequence[Sample], writer: Writer, max_length: int
) -> tuple[list[TokenRow], list[tuple[str, str]]]:
    """The rules said once more, on whole rows: (rows, (id, reason) of those left out)."""
    rows: list[TokenRow] = []
    out: list[tuple[str, str]] = []
    for sample in samples:
        answers = [turn.text for turn in sample.turns if turn.role == "assistant"]
        if not answers or not all(answer.strip() for answer in answers):
            out.append((sample.id, "an empty answer" if answers else "no assistant turn"))
            continue
        try:
            row = writer.row(sample)
        except UserError:
            out.append((sample.id, "picture marks do not fit the pictures"))
            continue
        short = row.first(max_length)
        if (row.ids[max_length:] == writer.image_token_id).any() or (short.cut and not short.learns):
            out.append((sample.id, "longer than max_length"))
        else:
            rows.append(short)
    return rows, out


TEXTS = st.text(max_size=24)
TALKS = st.builds(
    lambda id, pictures, marks, turns: Sample(
        id,
        tuple(ImageRef(f"{n}.png", member) for n, member in pictures[: marks + len(pictures) % 2]),
        tuple(
            turn
            for at, (asked, said) in enumerate(turns)
            for turn in (Turn("user", IMAGE_MARK * (marks if at == 0 else 0) + asked), Turn("assistant", said))
        ),
        "set",
    ),
    TEXTS,
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "ä", "\udcff"])), max_size=3),
    st.integers(0, 3),
    st.lists(st.tuples(TEXTS.filter(lambda text: IMAGE_MARK not in text), TEXTS), max_size=3),
)


@pytest.mark.parametrize("kind", [byte_level, metaspace])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd=st.lists(TALKS, max_size=6), max_length=st.integers(12, 60))
def test_rows_are_what_the_template_writes_cut_at_max_length(
    tmp_path_factory: pytest.TempPathFactory, kind: Any, odd: list[Sample], max_length: int
) -> None:
    writer = writer_of(kind)
    samples = [*odd, *(talk(f"good{n}", answer="ab") for n in range(len(odd) + 1))]
    rows, left_out = expected(samples, writer, 200 if max_length < 30 else max_length)
    max_length = 200 if max_length < 30 else max_length
    index = index_rows(samples, writer, max_length=max_length, folder=tmp_path_factory.mktemp("x") / "index")
    assert len(index) == len(rows)
    assert all(same(one, other) for one, other in zip(index, rows, strict=True))
    assert [(item.id, item.reason) for item in index.left_out] == left_out
    assert index.tokens.tolist() == [len(row.ids) for row in rows]
    assert index.learns.tolist() == [row.learns for row in rows]
    assert index.cut.tolist() == [row.cut for row in rows]
    assert index.pictures == len({ref for row in rows for ref in row.images})
    kept = [sample for sample in samples if RowMaker(writer, max_length).row(sample).__class__ is not Rejected]
    assert index.words.tolist() == signed_words(kept)


def test_rows_are_found_by_number_from_both_ends_and_in_stretches(tmp_path: Path) -> None:
    index = index_rows([talk(f"s{n}") for n in range(5)], writer_of(), max_length=99, folder=tmp_path / "index")
    assert [index[-1].id, index[0].id, index.id(3)] == ["s4", "s0", "s3"]
    assert [row.id for row in index[1:4]] == ["s1", "s2", "s3"]
    with pytest.raises(IndexError):
        index[5]
    again = pickle.loads(pickle.dumps(index))
    assert same(again[2], index[2]) and again.folder == index.folder


def test_two_samples_of_one_id_are_two_rows(tmp_path: Path) -> None:
    index = index_rows([talk("a"), talk("a", answer="no")], writer_of(), max_length=99, folder=tmp_path / "index")
    assert [row.id for row in index] == ["a", "a"] and not index.left_out


def test_pictures_of_equal_bytes_are_one_and_bad_ones_take_their_samples_out(tmp_path: Path) -> None:
    for name, colour in (("b", "red"), ("a", "red"), ("c", "blue")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    Image.new("L", (9000, 9000)).save(tmp_path / "huge.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "c.png").read_bytes()[:45])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no picture")
    a, b, c, huge, cut, empty, text, missing = (
        ImageRef(str(tmp_path / f"{name}.png")) for name in ("a", "b", "c", "huge", "cut", "empty", "text", "missing")
    )
    bad = {"huge": huge, "cut": cut, "empty": empty, "text": text, "missing": missing}
    samples = [talk("b", [b]), talk("a", [a]), talk("ca", [c, a]), talk("words"), *(talk(f"w{n}") for n in range(6))]
    samples += [talk(name, [c, ref]) for name, ref in bad.items()]
    before = [Rejected("r", "somewhere", "read before")]
    index = index_rows(samples, writer_of(), max_length=99, folder=tmp_path / "index", known_good=[], rejected=before)
    assert [(row.id, row.images) for row in index][:4] == [("b", (b,)), ("a", (b,)), ("ca", (c, b)), ("words", ())]
    assert index.pictures == 2 and len(index.sha256(0)) == 64 and index.sha256(0) != index.sha256(1)
    reasons = ["too_large", "damaged", "empty_file", "not_a_picture", "missing_file"]
    assert [(item.id, item.reason) for item in index.left_out] == [
        ("r", "read before"),
        *zip(bad, reasons, strict=True),
    ]
    assert [item.where for item in index.left_out[1:]] == [str(ref) for ref in bad.values()]
    assert [sample.id for sample in index.shown] == ["b", "a", "ca"]


def test_known_good_pictures_are_not_decoded_and_none_at_all_without_that_list(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"was good")
    there, gone = ImageRef(str(tmp_path / "x.png")), ImageRef("gone.png")
    index = index_rows(
        [talk("a", [there]), talk("b")], writer_of(), max_length=99, folder=tmp_path / "1", known_good=[there]
    )
    assert len(index) == 2
    unread = index_rows([talk("a", [there]), talk("b", [gone])], writer_of(), max_length=99, folder=tmp_path / "2")
    assert [row.images for row in unread] == [(there,), (gone,)] and unread.sha256(0) == ""


def test_a_set_of_bad_pictures_stops_at_once_and_leaves_no_index(tmp_path: Path) -> None:
    samples = [talk("a", [ImageRef("no.png")]), talk("b", [ImageRef("none.png")]), talk("c")]
    with pytest.raises(UserError, match="only 1 of 3 samples can be learnt from; 2 x missing_file"):
        index_rows(samples, writer_of(), max_length=99, folder=tmp_path / "index", known_good=[])
    with pytest.raises(UserError, match="no whole index"):
        Index.open(tmp_path / "index")


def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    row = RowMaker.row

    def spy(self: RowMaker, sample: Sample) -> Any:
        seen.append(sample.id)
        return row(self, sample)

    monkeypatch.setattr(RowMaker, "row", spy)
    return seen


def test_the_same_rows_are_not_tokenised_again_and_changed_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch)
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(picture)
    samples = [talk("a", [ImageRef(str(picture))]), talk("b")]

    def made(samples: Sequence[Sample], max_length: int = 99, writer: Writer | None = None) -> list[str]:
        seen.clear()
        index_rows(samples, writer or writer_of(), max_length=max_length, folder=tmp_path / "index", known_good=[])
        return list(seen)

    assert made(samples) == ["a", "b"] and made(samples) == []
    assert made([samples[0], talk("b", answer="no")]) == ["a", "b"]
    assert made(samples[::-1]) == ["b", "a"]
    assert made(samples[::-1], max_length=98) == ["b", "a"]
    assert made(samples[::-1], max_length=98, writer=writer_of(metaspace)) == ["b", "a"]
    assert made(samples[::-1], max_length=98, writer=writer_of(metaspace)) == []
    Image.new("RGB", (5, 5)).save(picture)
    assert made(samples[::-1], max_length=98, writer=writer_of(metaspace)) == ["b", "a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "index"]


def test_what_has_an_index_is_not_even_read(tmp_path: Path) -> None:
    read: list[str] = []

    def supply(key: str, answer: str = "yes") -> Supply:
        def stock() -> Stock:
            read.append(key)
            return Stock([talk("a", answer=answer)])

        return Supply(key, stock)

    for key in ("one", "one", "two", "two"):
        index_rows(supply(key), writer_of(), max_length=99, folder=tmp_path / "index")
    assert read == ["one", "two"]
    index = index_rows(supply("three", "no"), writer_of(), max_length=99, folder=tmp_path / "index")
    assert read == ["one", "two", "three"] and index.manifest["supply"].endswith(":three")
    index_rows(supply("three", "no"), writer_of(), max_length=98, folder=tmp_path / "index")
    assert read[3:] == ["three"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def many(folder: Path) -> list[Sample]:
    for number in range(12):
        if not (path := folder / f"{number}.png").exists():
            Image.new("RGB", (4, 4), (number % 9, 0, 0)).save(path)
    return [talk(f"s{n}", [ImageRef(str(folder / f"{n % 13}.png"))], answer="yes no " * (n % 5 + 1)) for n in range(60)]


def main(folder: Path, die_at: int) -> None:
    """Make the index of `many` in parts of a few; die at one of the renames."""
    index_making.PART_ROWS, picture_parts.PART_PICTURES = 7, 5
    publish, times = publishing.publish, iter(range(10**6))

    def dying(path: Path) -> Any:
        if next(times) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return publish(path)

    for module in (part_files, index_making):
        setattr(module, "publish", dying)  # noqa: B010  # not theirs to hand out
    index_rows(many(folder), writer_of(), max_length=30, folder=folder / "index", known_good=[])


def run(folder: Path, die_at: int) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.test_index", str(folder), str(die_at)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=300,
    )
    return done.returncode


@pytest.mark.parametrize("die_at", [2, 12])
def test_killed_and_run_again_it_has_the_same_bytes(
    tmp_path: Path, die_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_making, "PART_ROWS", 7)
    monkeypatch.setattr(picture_parts, "PART_PICTURES", 5)
    samples = many(tmp_path)
    index_rows(samples, writer_of(), max_length=30, folder=tmp_path / "whole", known_good=[])
    assert run(tmp_path, die_at) == -signal.SIGKILL
    assert not (tmp_path / "index").exists()
    parts = list((tmp_path / ".index.parts").glob("[!.]*.npz"))
    assert len(parts) == die_at  # of 3 of pictures and 9 of rows; each is kept
    seen = spied(monkeypatch)
    index_rows(samples, writer_of(), max_length=30, folder=tmp_path / "index", known_good=[])
    good = [sample.id for sample in samples if not sample.images[0].path.endswith("12.png")]
    done = 7 * max(0, die_at - 3)
    assert seen == [sample for sample in good if int(sample[1:]) >= done]
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")
    assert not (tmp_path / ".index.parts").exists()


def test_parts_made_by_several_processes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_making, "PART_ROWS", 20)
    samples = many(tmp_path)
    index_rows(samples, writer_of(), max_length=30, folder=tmp_path / "one", known_good=[])
    index_rows(samples, writer_of(), max_length=30, folder=tmp_path / "two", known_good=[], workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: b"", lambda data: data[:300] + b"?" + data[301:]]
)
def test_a_torn_part_is_noticed_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_making, "PART_ROWS", 20)
    samples = many(tmp_path)
    index_rows(samples, writer_of(), max_length=30, folder=tmp_path / "whole", known_good=[])
    with monkeypatch.context() as patch:
        patch.setattr(index_making, "_merge", lambda *words: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            index_rows(samples, writer_of(), max_length=30, folder=tmp_path / "index", known_good=[])
    torn = sorted((tmp_path / ".index.parts").glob("rows-00001*"))[0]
    torn.write_bytes(damage(torn.read_bytes()))
    seen = spied(monkeypatch)
    index_rows(samples, writer_of(), max_length=30, folder=tmp_path / "index", known_good=[])
    assert seen == [f"s{n}" for n in range(20, 40) if n % 13 != 12]
    assert f"{torn.name}: torn, made again" in caplog.text
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")


def test_a_damaged_index_is_refused_by_the_others_and_made_again_by_the_first(tmp_path: Path) -> None:
    index_rows([talk("a")], writer_of(), max_length=99, folder=tmp_path / "index")
    whole = contents(tmp_path / "index")
    (tmp_path / "index" / "ids.npy").write_bytes(whole["ids.npy"][:-2])
    with pytest.raises(UserError, match=r"no whole index of rows \(ids\.npy is damaged\)"):
        Index.open(tmp_path / "index")
    index_rows([talk("a")], writer_of(), max_length=99, folder=tmp_path / "index")
    assert contents(tmp_path / "index") == whole
    (tmp_path / "index" / "manifest.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(UserError, match="no whole index"):
        Index.open(tmp_path / "index")


@pytest.mark.parametrize("place", ["part", "merge"])
def test_a_full_disk_is_one_clear_error_and_parts_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*words: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full) if place == "part" else patch.setattr(index_making, "_write_ids", full)
        with pytest.raises(UserError, match="No space left on device; make room there"):
            index_rows([talk("a")], writer_of(), max_length=99, folder=tmp_path / "index")
    assert len(list((tmp_path / ".index.parts").glob("*"))) == (place == "merge")
    assert len(index_rows([talk("a")], writer_of(), max_length=99, folder=tmp_path / "index")) == 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
