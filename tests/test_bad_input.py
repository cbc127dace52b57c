"""Bad input through the `bunny` command, end to end on a tiny random model: nothing is skipped or lost in silence.

Every case ends in one clear line and exit code 2, or in a counted, listed reason in an artifact of the run.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from bunny.cli import app

COLOURS = ("red", "lime", "blue", "orange", "teal", "navy", "gold", "gray", "pink", "brown", "black", "white")
EMBEDDER = '''
"""Mean colour and letters as vectors; captions that begin with `nan` or `zero` get a vector that is none."""
import numpy as np
from bunny.core.recipe import Section
from bunny.core.types import Embedded

class Colours(Section):
    name: str = "colours"
    dim: int = 8

    def embed(self, pictures, texts):
        image = np.stack([picture[::4, ::4].astype(np.float32).reshape(-1, 3)[:8].sum(1) + 1 for picture in pictures])
        image += np.stack([picture.mean((0, 1)) for picture in pictures]) @ np.arange(24).reshape(3, 8)
        for row, text in enumerate(texts):
            image[row] *= {"nan ": np.nan, "zero": 0.0}.get(text[:4], 1.0)
        words = np.stack([np.bincount(np.frombuffer(text.encode(), np.uint8) % 8, minlength=8) + 1.0 for text in texts])
        return Embedded(image, words.astype(np.float32))
'''
HUGE_CAPTION = "word " * 2_000_000  # 10 MB


def tiny_language_model(folder: Path) -> Path:
    """A random two-layer Llama whose tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: id for id, token in enumerate(["<s>", "<|endoftext|>", "<|reserved_0|>", *letters])}
    raw = Tokenizer(models.BPE(vocab=words, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="<|endoftext|>", extra_special_tokens=["<|reserved_0|>"]
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=512, bos_token_id=0, eos_token_id=1, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    return folder / "lm"


def tiny_tower(folder: Path) -> Path:
    """A random SigLIP tower of 16 pixels and four patches."""
    import torch
    from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(folder / "tower")
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / "tower")
    return folder / "tower"


def picture(colour: str = "red", size: tuple[int, int] = (24, 16), kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **settings)
    return buffer.getvalue()


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def noise(seed: int, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 40, 3), np.uint8)).convert(mode)


def write_pool(path: Path, rows: list[tuple[str, bytes | None, str | None]]) -> None:
    """rows: (id, encoded picture, caption)."""
    ids, pictures, captions = zip(*rows, strict=True)
    columns = {"id": list(ids), "image": pa.array(pictures, pa.binary()), "caption": pa.array(captions, pa.string())}
    pq.write_table(pa.table(columns), path)


def good_rows() -> list[tuple[str, bytes | None, str | None]]:
    return [(f"good{n}", encoded(noise(n), "PNG"), f"a {colour} thing") for n, colour in enumerate(COLOURS)]


@dataclass(frozen=True)
class Place:
    """A folder with a tiny recipe and all it needs."""

    folder: Path
    recipe: Path

    def tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = yaml.safe_load(self.recipe.read_text())
        return tree


STAGE = {"learning_rate": 1e-3, "rows_per_step": 4, "max_steps": 4, "save_every_steps": 1}


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's parts and the embedder, shared by all tests."""
    folder = tmp_path_factory.mktemp("parts")
    tiny_language_model(folder)
    tiny_tower(folder)
    (folder / "tiny_embedder.py").write_text(EMBEDDER)
    return folder


def make_place(folder: Path, parts: Path) -> Place:
    """A clean pool, held-out pictures and a recipe of all four stages in `folder`."""
    tree = {
        "name": "tiny",
        "pool": {"source": {"use": "table", "path": "pool.parquet"}},
        "curate": {
            "embedder": {"use": "tiny_embedder:Colours"},
            "steps": [{"use": "exact"}, {"use": "cluster", "groups": 2}, {"use": "dedup", "above": 0.999999}],
            "threads": 1,
        },
        "model": {"language_model": str(parts / "lm"), "vision_tower": str(parts / "tower")},
        "align": {"data": [{"use": "captions", "plain": True}], "language_model": "frozen", **STAGE},
        "tune": {
            "data": [{"use": "captions"}],
            "language_model": "lora",
            "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
            **STAGE,
        },
        "evaluate": {"tasks": [{"use": "picture_yes_no", "path": "heldout.parquet"}], "max_new_tokens": 3},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_pool(folder / "pool.parquet", good_rows())
    words = [[colour] for colour in COLOURS[:4]]
    held_out = {"image": [encoded(noise(100 + n), "PNG") for n in range(4)], "words": words}
    pq.write_table(pa.table(held_out), folder / "heldout.parquet")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tree))
    return Place(folder, recipe)


def bunny(*words: object, text: str | None = None) -> Result:
    """Run a command line in this process."""
    log = logging.getLogger("bunny")
    before = log.handlers[:], log.propagate
    try:
        return CliRunner().invoke(app, [str(word) for word in words], input=text)
    finally:
        log.handlers[:], log.propagate = before


@pytest.fixture
def place(tmp_path: Path, parts: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.syspath_prepend(str(parts))
    monkeypatch.chdir(tmp_path)
    return make_place(tmp_path, parts)


def refused(ran: Result) -> str:
    """The one line a refused command ends with; fails if it is anything else."""
    last = ran.stderr.splitlines()[-1] if ran.stderr else ""
    assert ran.exit_code == 2, ran.output
    assert last.startswith("bunny: "), ran.output
    assert "Traceback" not in ran.output
    assert ran.stderr.count("bunny: ") == 1
    assert len(last) < 500, last
    return last


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# One run over everything that can be wrong with rows and pictures


def truncated_jpeg() -> bytes:
    data = encoded(noise(1).resize((200, 200)), "JPEG")
    return data[: len(data) // 2]


def enormous_png() -> bytes:
    """A header that promises 30,000 x 30,000 pixels in 1 MB."""
    return encoded(Image.new("1", (30_000, 30_000)), "PNG")


def rotated_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    return encoded(noise(3), "JPEG", exif=exif)


def animated_gif() -> bytes:
    frames = [noise(seed, "P") for seed in (4, 5, 6)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def deep_grey_png() -> bytes:
    deep = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    return encoded(Image.fromarray(deep), "PNG")


UNUSUAL = {
    "deep16": (deep_grey_png, (40, 24)),
    "cmyk": (lambda: encoded(noise(7, "CMYK"), "JPEG"), (40, 24)),
    "palette": (lambda: encoded(noise(8, "P"), "PNG"), (40, 24)),
    "animated": (animated_gif, (40, 24)),
    "rotated": (rotated_jpeg, (24, 40)),
}
"""id -> (encoded picture, size it has when seen upright); all of these are fine."""

BAD_PICTURES = {
    "truncated": (truncated_jpeg, "damaged"),
    "zero_bytes": (lambda: b"", "empty_file"),
    "enormous": (enormous_png, "too_large"),
    "no_picture": (lambda: None, "no_picture"),
    "text": (lambda: b"this is no picture at all", "not_a_picture"),
}
BAD_WORDS = {
    "no_words": (None, "empty_caption"),
    "blank": ("  \n", "empty_caption"),
    "huge": (HUGE_CAPTION, "caption_too_long"),
    "nan_vector": ("nan caption", "no_vector"),
    "zero_vector": ("zero caption", "no_vector"),
}


def spoil(place: Place) -> None:
    """Put everything bad into the pool and the tuning data."""
    rows = good_rows()
    rows += [(id, make(), f"a caption of {id}") for id, (make, _) in UNUSUAL.items()]
    rows += [(id, make(), f"a caption of {id}") for id, (make, _) in BAD_PICTURES.items()]
    rows += [(id, encoded(noise(50), "PNG"), words) for id, (words, _) in BAD_WORDS.items()]
    rows += [("good0", picture("red"), "a second good0"), ("twin", encoded(noise(0), "BMP"), "the same pixels")]
    write_pool(place.folder / "pool.parquet", rows)
    (place.folder / "ok.png").write_bytes(picture("teal"))
    (place.folder / "half.jpg").write_bytes(truncated_jpeg())
    (place.folder / "chats.jsonl").write_text("\n".join(CHATS) + "\n")
    tree = place.tree()
    tree["tune"]["data"].append({"use": "llava_json", "path": "chats.jsonl"})
    tree["tune"]["max_length"] = 600
    place.recipe.write_text(yaml.safe_dump(tree))


def chat_row(id: str, image: str, question: str = "<image>\nWhat is this?", answer: str = "a thing") -> str:
    talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return json.dumps({"id": id, "image": image, "conversations": talk})


CHATS = [
    chat_row("fine", "ok.png"),
    chat_row("fine", "ok.png", answer="the same id again"),
    chat_row("missing_picture", "nowhere.png"),
    chat_row("half_picture", "half.jpg"),
    chat_row("no_mark", "ok.png", question="no mark"),
    chat_row("no_answer", "ok.png", answer=" "),
    chat_row("endless", "ok.png", answer="word " * 200),
    chat_row("huge", "ok.png", answer=HUGE_CAPTION),
    '{"id": "torn", "conversations": [',
    '["a list"]',
]
LEFT_OUT = {
    "missing_picture": "missing_file",
    "half_picture": "damaged",
    "no_mark": "image_marks",
    "no_answer": "empty_answer",
    "huge": "caption_too_long",
    "chats.jsonl:9": "malformed_json",
    "chats.jsonl:10": "malformed_row",
}


@pytest.fixture(scope="module")
def spoilt_run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run folder of a whole run over the spoilt pool."""
    place = make_place(tmp_path_factory.mktemp("spoilt"), parts)
    spoil(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(parts))
        ran = bunny("run", place.recipe, "-o", place.folder / "out")
        assert ran.exit_code == 0, ran.output
        yield place.folder / "out"


def test_every_bad_row_of_the_pool_is_listed_with_its_reason(spoilt_run: Path) -> None:
    found = {row["id"]: row["reason"] for row in lines(spoilt_run / "curated" / "rejected.jsonl")}
    wanted = {id: reason for group in (BAD_PICTURES, BAD_WORDS) for id, (_, reason) in group.items()}
    assert found == {**wanted, "good0": "duplicate_id"}


def test_unusual_pictures_are_kept_and_seen_upright(spoilt_run: Path) -> None:
    table = pq.read_table(spoilt_run / "curated" / "decisions.parquet").to_pylist()
    found = {row["id"]: (row["width"], row["height"]) for row in table if row["id"] in UNUSUAL and row["kept"]}
    assert found == {id: size for id, (_, size) in UNUSUAL.items()}


def test_rows_in_are_rows_kept_dropped_and_rejected(spoilt_run: Path) -> None:
    rows = len(good_rows()) + len(UNUSUAL) + len(BAD_PICTURES) + len(BAD_WORDS) + 2
    summary = json.loads((spoilt_run / "curated" / "summary.json").read_text())
    table = pq.read_table(spoilt_run / "curated" / "decisions.parquet").to_pylist()
    kept = [row for row in table if row["kept"]]
    dropped = [row for row in table if not row["kept"] and row["step"] != "reading"]
    rejected = [row for row in table if row["step"] == "reading"]
    assert rows == len(table) == summary["samples"] == len(kept) + len(dropped) + len(rejected)
    assert (summary["kept"], sum(summary["rejected"].values())) == (len(kept), len(rejected))
    assert [(row["id"], row["twin"]) for row in dropped] == [("twin", "good0")]
    assert all(row["reason"] for row in (*dropped, *rejected))


def test_the_report_names_every_reason(spoilt_run: Path) -> None:
    page = (spoilt_run / "curated" / "report.html").read_text()
    reasons = {reason for group in (BAD_PICTURES, BAD_WORDS) for _, reason in group.values()}
    assert [reason for reason in reasons if reason not in page and reason.replace("_", " ") not in page] == []


def test_every_bad_conversation_is_listed_with_its_reason(spoilt_run: Path) -> None:
    left_out = lines(spoilt_run / "model" / "training" / "left_out.jsonl")
    assert {Path(row["id"]).name: row["reason"] for row in left_out} == LEFT_OUT
    facts = json.loads((spoilt_run / "model" / "manifest.json").read_text())
    pairs = json.loads((spoilt_run / "curated" / "summary.json").read_text())["kept"]
    assert (facts["rows"], facts["left_out"]) == (pairs + 3, len(LEFT_OUT))  # both rows that are called `fine`
    assert facts["cut"] == 1  # `endless`


def test_a_picture_that_cannot_be_shown_in_evaluation_counts_as_wrong(spoilt_run: Path, tmp_path: Path) -> None:
    content = {"image": [truncated_jpeg(), *(encoded(noise(n), "PNG") for n in range(3))]}
    words = [[colour] for colour in COLOURS[:4]]
    pq.write_table(pa.table({**content, "words": words}), tmp_path / "pictures.parquet")
    place = spoilt_run.parent / "recipe.yaml"
    output = shutil.copytree(spoilt_run, tmp_path / "out")
    ran = bunny("run", place, "--set", f"evaluate.tasks.0.path={tmp_path / 'pictures.parquet'}", "-o", output, "--json")
    assert ran.exit_code == 0, ran.output
    task = json.loads(ran.stdout)["tasks"]["picture_yes_no"]
    answers = lines(output / "scores" / "answers" / "picture_yes_no.jsonl")
    failed = [row for row in answers if row["error"]]
    assert task["statuses"]["error"] == len(failed) == sum("#0" in row["images"][0] for row in answers) > 0
    assert all(row["points"] == 0 for row in failed)


# Recipes that name what is not there


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("pool.source.path=nowhere/*.parquet", "nowhere/*.parquet: no such file"),
        ("pool.source.path=nowhere", "nowhere: no such file"),
        ("pool.source.use=tabel", "did you mean `table`?"),
        ("pool.source.captoin=x", "did you mean `caption`?"),
        ("pool.source.caption=words", "known: id, image, caption"),
        ("tune.learning_rte=1", "did you mean `learning_rate`?"),
        ("tune.learning_rate=fast", "tune.learning_rate: "),
        ("curate.steps.0.use=exakt", "did you mean `exact`?"),
        ("curate.steps.2.abov=0.9", "did you mean `above`?"),
        ("curate.embedder.use=clipp", "did you mean `clip`?"),
        ("curate.embedder.use=no_such_module:Thing", "nothing is called `no_such_module:Thing`"),
        ("align.data.0.use=caption", "did you mean `captions`?"),
        ("align.data.0={use: 'tiny_embedder:Colours'}", "makes no conversations"),
        ("evaluate.tasks.0.use=picture_yesno", "did you mean `picture_yes_no`?"),
        ("evaluate.tasks.0.path=nowhere.parquet", "nowhere.parquet"),
        ("model.language_model=bundled:smollm2-135m", "did you mean `smollm2-135m-instruct`?"),
        ("model.language_model=./no_model", "./no_model"),
        ("model.vision_tower=bundled:vit", "did you mean `vit-s14`?"),
        ("model.vision_tower=./no_tower", "./no_tower"),
        ("model.projector=mlp", "no projector is called `mlp`"),
        ("model.template=buny", "did you mean `bunny`?"),
        ("tune.template=lama", "did you mean `llama`?"),
        ("align.start_projector=nowhere.safetensors", "nowhere.safetensors"),
        ("model.vision_feature_layer=7", "vision_feature_layer"),
        ("tune.data.0.cap=0", "greater than 0"),
    ],
)
def test_a_recipe_that_names_what_is_not_there_is_refused_in_one_line(place: Place, setting: str, wanted: str) -> None:
    assert wanted in refused(bunny("run", place.recipe, "--set", setting, "-o", "out"))


@pytest.mark.parametrize(
    "setting",
    [
        "align.data.0.use=caption",
        "evaluate.tasks.0.use=picture_yesno",
        "model.language_model=bundled:smollm",
        "model.vision_tower=bundled:vit",
        "model.projector=mlp",
        "model.template=buny",
        "tune.template=lama",
        "align.start_projector=nowhere.safetensors",
        "evaluate.tasks.0.path=nowhere.parquet",
    ],
)
def test_a_wrong_name_is_found_before_any_work_is_done(place: Place, setting: str) -> None:
    refused(bunny("run", place.recipe, "--set", setting, "-o", "out"))
    assert not (place.folder / "out" / "curated").exists()


@pytest.mark.parametrize(
    ("content", "wanted"), [(b"name: [", "not valid YAML"), (b"- a list", "mapping"), (b"\xff\xfe\x00", "read")]
)
def test_a_file_that_is_no_recipe_is_refused(place: Place, content: bytes, wanted: str) -> None:
    place.recipe.write_bytes(content)
    assert wanted in refused(bunny("run", place.recipe, "-o", "out"))
    assert "no such recipe" in refused(bunny("run", "nowhere.yaml"))


def test_a_pool_of_bad_rows_only_is_refused_with_the_first_reason(place: Place) -> None:
    write_pool(place.folder / "pool.parquet", [("a", picture(), ""), ("b", picture(), None)])
    assert "empty_caption" in refused(bunny("curate", "run", place.recipe, "-o", "out"))


def test_a_pool_of_bad_pictures_only_is_refused_and_listed(place: Place) -> None:
    write_pool(place.folder / "pool.parquet", [("a", b"", "words"), ("b", truncated_jpeg(), "words")])
    message = refused(bunny("curate", "run", place.recipe, "-o", "out"))
    assert "empty_file" in message
    assert "damaged" in message


def test_a_pool_that_is_no_parquet_file_is_refused(place: Place) -> None:
    (place.folder / "pool.parquet").write_bytes(b"PAR1 half a file")
    assert "not a whole Parquet file" in refused(bunny("curate", "run", place.recipe, "-o", "out"))


# Folders that cannot be written, and disks that are full


def test_an_output_folder_below_a_file_is_refused(place: Place) -> None:
    assert "cannot write to" in refused(bunny("run", place.recipe, "-o", place.recipe / "out"))
    assert "--output" in refused(bunny("run", place.recipe, "-o", place.recipe / "out"))


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Mounts file systems in memory, with these options; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path_factory.mktemp("disk")
        program = shutil.which("mount")
        done = program and subprocess.run([program, "-t", "tmpfs", "-o", options, "none", folder], capture_output=True)
        if not done or done.returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)  # vectors may still be mapped


@pytest.mark.slow
@pytest.mark.parametrize("size", ["16k", "128k", "384k"])
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    place: Place, small_disk: Callable[[str], Path], size: str
) -> None:
    disk = small_disk(f"size={size}")
    message = refused(bunny("run", place.recipe, "-o", disk / "out"))
    assert os.strerror(errno.ENOSPC) in message
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    assert bunny("run", place.recipe, "-o", disk / "out").exit_code == 0


def test_a_read_only_disk_is_named(place: Place, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("ro,size=1m")
    assert os.strerror(errno.EROFS) in refused(bunny("run", place.recipe, "-o", disk / "out"))


@pytest.mark.parametrize(
    "place_of_failure",
    [
        "bunny.curate.part_making._write_rest",
        "bunny.curate.write_table",
        "bunny.pipeline.stages.fingerprint_named",
        "bunny.train.watchers.draw_curves",
        "bunny.evaluate.cache.AnswerCache.put",
        "bunny.pipeline.flow.write_atomic",
    ],
)
def test_a_disk_that_fills_up_anywhere_is_one_line(
    place: Place, monkeypatch: pytest.MonkeyPatch, place_of_failure: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    importlib.import_module("bunny.pipeline.flow")
    importlib.import_module("bunny.train.watchers")
    importlib.import_module("bunny.evaluate.cache")
    with monkeypatch.context() as patch:
        patch.setattr(place_of_failure, full)
        assert os.strerror(errno.ENOSPC) in refused(bunny("run", place.recipe, "-o", "out"))


# Chat and evaluation of a folder


@pytest.fixture(scope="module")
def model(spoilt_run: Path) -> Path:
    return spoilt_run / "model"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "holds no bytes"),
        (b"no picture", "not a picture"),
        (truncated_jpeg(), "cannot be decoded"),
        (enormous_png(), "900000000 pixels"),
    ],
)
def test_a_bad_picture_in_a_chat_is_one_line(model: Path, tmp_path: Path, content: bytes, wanted: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert wanted in refused(bunny("chat", model, tmp_path / "x.png", "What is this?"))


@pytest.mark.parametrize("id", list(UNUSUAL))
def test_an_unusual_picture_in_a_chat_is_answered(model: Path, tmp_path: Path, id: str) -> None:
    (tmp_path / "x.png").write_bytes(UNUSUAL[id][0]())
    ran = bunny("chat", model, tmp_path / "x.png", "What is this?", "--json", "--max-new-tokens", 2)
    assert (ran.exit_code, list(json.loads(ran.stdout))) == (0, ["answer"])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["nowhere.png", "What?"], "nowhere.png: no such picture"),
        (["a.png", ""], "a.png: no such picture"),
        ([""], "empty question"),
        (["   "], "empty question"),
        (["<image> what?"], "<image>"),
    ],
)
def test_a_question_that_is_none_is_refused(model: Path, words: list[str], wanted: str) -> None:
    assert wanted in refused(bunny("chat", model, *words))


def test_a_folder_that_is_no_model_is_refused(place: Place, model: Path) -> None:
    other = Path(shutil.copytree(model, "damaged"))
    weights = (other / "model.safetensors").read_bytes()
    assert "no model there" in refused(bunny("chat", place.folder, "What is this?"))
    assert "no model there" in refused(bunny("chat", "nowhere", "What is this?"))
    assert "no image-text model" in refused(bunny("chat", place.tree()["model"]["language_model"], "What is this?"))
    (other / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "damaged" in refused(bunny("chat", other, "What is this?"))
    (other / "model.safetensors").unlink()
    assert "damaged" in refused(bunny("chat", other, "What is this?"))
    (other / "config.json").write_text("{ half")
    assert "damaged" in refused(bunny("chat", other, "What is this?"))


def test_evaluating_what_is_not_there_is_refused(place: Place, model: Path) -> None:
    assert "did you mean `easy_vqa`?" in refused(bunny("eval", model, "-t", "easy_vqua"))
    assert "no model there" in refused(bunny("eval", place.folder, "-t", "easy_vqa"))
    assert "picture_yes_no" in refused(bunny("eval", model, "-t", "picture_yes_no"))
    assert "cannot write" in refused(bunny("eval", model, "-t", "easy_vqa", "-o", place.recipe / "out"))


def test_explaining_what_is_not_there_is_refused(spoilt_run: Path, place: Place) -> None:
    assert "no finished curation there" in refused(bunny("curate", "explain", place.folder, "good0"))
    assert "did you mean `good" in refused(bunny("curate", "explain", spoilt_run, "good99"))


# Processes that are killed


def run_and_die(words: list[str], where: str, call: int) -> None:
    """Run a command line in a fresh process that is killed (signal 9) at the call number `call` of a function."""
    module, _, place = where.partition(":")
    kind, _, name = place.rpartition(".")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    original, calls = getattr(owner, name), []

    def deadly(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, deadly)
    app(words)


KILLS = {
    "embed": ("bunny.curate.part_making:_embed", 1),
    "align": ("bunny.train.trainer:StepTrainer.training_step", 3),
    "align's checkpoint": ("bunny.train.trainer:save_file", 2),
    "tune": ("bunny.train.trainer:StepTrainer.training_step", 3),
    "tune's last file": ("bunny.core.store:publish", 1),
    "evaluate": ("bunny.evaluate.cache:AnswerCache.put", 7),
}
"""what dies -> (module:function, at its n-th call in that process)"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal 9")
def test_a_run_killed_at_every_stage_ends_with_the_same_scores_and_weights(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["-q", "run", str(place.recipe), "-o"]
    assert bunny(*words, "whole").exit_code == 0
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["torch", "transformers", "peft", "bunny.train.stage", "bunny.model.build"])
    for where, call in KILLS.values():
        killed = start.Process(target=run_and_die, args=([*words, "killed"], where, call))
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL, where
    assert bunny(*words, "killed").exit_code == 0
    whole, again = (json.loads(Path(name, "results.json").read_text()) for name in ("whole", "killed"))
    assert again["tasks"] == whole["tasks"]
    for name in ("aligned/projector.safetensors", "model/model.safetensors", "curated/samples.parquet"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes(), name
    left, wanted = ({path.name for path in Path(name).iterdir()} for name in ("killed", "whole"))
    assert left == wanted  # no half-made work is left behind
