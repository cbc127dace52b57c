"""Answers survive whatever ends the process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings, ImageRef, Question
from bunny.evaluate.cache import AnswerCache


def question(prompt: str = "What?", *images: ImageRef) -> Question:
    return Question("q", prompt, images, ("x",))


def test_reads_back_what_was_put(tmp_path: Path) -> None:
    AnswerCache(tmp_path / "new" / "cache.jsonl").put("k", "q", "two\nlines and \u2028 \ud800")
    assert AnswerCache(tmp_path / "new" / "cache.jsonl").get("k") == "two\nlines and \u2028 \ud800"


def test_torn_last_line_is_left_out_and_the_next_answer_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.jsonl"
    for name in ("a", "b"):
        AnswerCache(path).put(name, name, f"text {name}")
    path.write_bytes(path.read_bytes()[:-9])
    cache = AnswerCache(path)
    assert (cache.torn, cache.get("a"), cache.get("b")) == (1, "text a", None)
    assert "torn" in caplog.text
    cache.put("c", "c", "text c")
    again = AnswerCache(path)
    assert (again.get("a"), again.get("c"), len(again)) == ("text a", "text c", 2)


@pytest.mark.parametrize("line", [b"null\n", b"[1]\n", b'{"key": 1, "text": "x"}\n', b"\xff\xfe\n", b'{"key": "k"}\n'])
def test_lines_that_are_no_answers_are_counted(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "cache.jsonl").write_bytes(line)
    assert AnswerCache(tmp_path / "cache.jsonl").torn == 1


def test_answers_put_before_a_kill_are_there_after_it(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    code = f"""
import os, signal
from pathlib import Path
from bunny.evaluate.cache import AnswerCache
cache = AnswerCache(Path({str(path)!r}))
for row in range(50):
    cache.put(str(row), "q", "x" * row)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    cache = AnswerCache(path)
    assert (len(cache), cache.torn, cache.get("49")) == (50, 0, "x" * 49)


def test_key_changes_with_all_that_an_answer_depends_on(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"one")
    cache, image = AnswerCache(tmp_path / "cache.jsonl"), ImageRef(str(picture))
    keys = [
        cache.key("m", question("What?", image)),
        cache.key("other", question("What?", image)),
        cache.key("m", question("Where?", image)),
        cache.key("m", question("What?")),
        cache.key("m", question("What?", image, image)),
        cache.key("m", question("What?", ImageRef(str(picture), "3"))),
        cache.key("m", question("What?", ImageRef(str(picture), "3", "other"))),
        cache.key("m", question("What?", image), GenerationSettings()),
        cache.key("m", question("What?", image), GenerationSettings(temperature=0.5)),
    ]
    picture.write_bytes(b"two")
    keys.append(AnswerCache(tmp_path / "cache.jsonl").key("m", question("What?", image)))
    assert len(set(keys)) == len(keys)


def test_a_picture_counts_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    keys = []
    for name in ("here/a.png", "there/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"one" * 1_000_000)
        cache = AnswerCache(tmp_path / "cache.jsonl")
        keys.append(cache.key("m", question("What?", ImageRef(str(tmp_path / name)))))
    assert keys[0] == keys[1]


def test_the_digest_given_says_what_a_picture_is(tmp_path: Path) -> None:
    def digest(image: ImageRef) -> str:
        if image.member == "bad":
            raise UserError("not a picture")
        return "same"

    cache = AnswerCache(tmp_path / "cache.jsonl", digest=digest)
    keys = [cache.key("m", question("What?", ImageRef("set.parquet", member))) for member in ("1", "2", "bad")]
    assert keys[0] == keys[1] != keys[2]


def test_processes_write_files_of_their_own_and_read_all(tmp_path: Path) -> None:
    path = tmp_path / "run[1]" / "answers.jsonl"
    for rank in range(3):
        AnswerCache(path, rank).put(f"k{rank}", "q", f"text {rank}")
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "answers.1.jsonl",
        "answers.2.jsonl",
        "answers.jsonl",
    ]
    for rank in range(4):
        assert [AnswerCache(path, rank).get(f"k{n}") for n in range(3)] == ["text 0", "text 1", "text 2"]


def test_a_line_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    AnswerCache(path, 1).put("k", "q", "text")
    torn = path.with_name("answers.1.jsonl")
    torn.write_bytes(torn.read_bytes() + b'{"key": "l", "te')
    before = torn.read_bytes()
    assert AnswerCache(path).get("k") == "text"
    assert torn.read_bytes() == before


def test_a_place_that_cannot_be_written_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="answers cannot be kept there"):
        AnswerCache(tmp_path / "file" / "cache.jsonl").put("k", "q", "text")


def test_every_line_is_one_json_object(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "cache.jsonl")
    cache.put("k", "q7", "yes")
    assert json.loads(cache.path.read_text()) == {"key": "k", "id": "q7", "text": "yes"}
