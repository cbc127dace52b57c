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


def test_key_is_the_same_after_the_pictures_folder_has_moved(tmp_path: Path) -> None:
    keys = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"one")
        cache = AnswerCache(tmp_path / "cache.jsonl")
        keys.append(cache.key("m", question("What?", ImageRef(str(folder / "a.png")))))
    assert keys[0] == keys[1]


def test_a_place_that_cannot_be_written_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="answers cannot be kept there"):
        AnswerCache(tmp_path / "file" / "cache.jsonl").put("k", "q", "text")


def test_every_line_is_one_json_object(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "cache.jsonl")
    cache.put("k", "q7", "yes")
    assert json.loads(cache.path.read_text()) == {"key": "k", "id": "q7", "text": "yes"}
