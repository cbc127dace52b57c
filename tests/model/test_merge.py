"""Averaging model folders: the sums, what is refused, and that nothing half done is left."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bunny.core.errors import UserError
from bunny.core.store import Store
from bunny.model.merge import average
from bunny.model.tensors import open_tensors

from .tables import names_in, same, whole, write_sharded

CONFIG = {"model_type": "bunny", "dtype": "float32", "text_config": {"model_type": "llama", "dtype": "float32"}}
NAMES = ("model.language_model.embed_tokens.weight", "lm_head.weight", "model.layers.0.weight", "model.norm.weight")


def tensors(seed: int, dtype: torch.dtype = torch.float32, rows: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, 4), (rows, 4), (5, 4), (4,))
    drawn = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return {**dict(zip(NAMES, drawn, strict=True)), "steps": torch.arange(3)}


def folder(path: Path, seed: int, shards: int = 1, config: dict[str, Any] | None = None, **settings: Any) -> Path:
    return write_sharded(path, tensors(seed, **settings), shards, CONFIG if config is None else config)


def written(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("weights", [[1.0], [0.3, 0.7], [0.42, 0.58], [0.2, 0.3, 0.5]])
def test_every_tensor_is_the_weighted_sum_in_float32(tmp_path: Path, weights: list[float], dtype: str | None) -> None:
    kinds = [torch.bfloat16, torch.float16, torch.float32][: len(weights)]
    folders = [folder(tmp_path / str(i), i, shards=i + 1, dtype=kind) for i, kind in enumerate(kinds)]
    record = average(folders, weights, tmp_path / "out", dtype)
    wide = getattr(torch, dtype) if dtype else (torch.bfloat16 if len(weights) == 1 else torch.float32)
    many = [tensors(i, kind) for i, kind in enumerate(kinds)]
    twin = {"steps": torch.arange(3)}
    for name in NAMES:
        total = weights[0] * many[0][name].float()
        for each, weight in zip(many[1:], weights[1:], strict=True):
            total = total + weight * each[name].float()
        twin[name] = total.to(wide)
    assert same(written(tmp_path / "out"), twin)
    assert record["dtype"] == str(wide).removeprefix("torch.")


def test_the_last_folder_gives_config_and_other_files(tmp_path: Path) -> None:
    first, last = (folder(tmp_path / name, 0) for name in ("a", "b"))
    for path in (first, last):
        (path / "tokenizer.json").write_text(path.name)
        (path / "additional_chat_templates").mkdir()
        (path / "additional_chat_templates" / "tool.jinja").write_text(path.name)
        for left in ("manifest.json", "metrics.jsonl", "training_args.bin", ".lock"):
            (path / left).write_text("of one run")
    average([first, last], [0.5, 0.5], tmp_path / "out", "bfloat16")
    kept = ["additional_chat_templates", "config.json", "merge.json", "model.safetensors", "tokenizer.json"]
    assert names_in(tmp_path / "out") == kept
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "b"
    assert (tmp_path / "out" / "additional_chat_templates" / "tool.jinja").read_text() == "b"
    average([first, last], [0.5, 0.5], tmp_path / "other", config_from=0)
    assert (tmp_path / "other" / "tokenizer.json").read_text() == "a"


def test_config_and_record_say_what_was_written(tmp_path: Path) -> None:
    old = {"model_type": "bunny-phi", "torch_dtype": "float16", "mm_projector_type": "mlp2x_gelu"}
    bare = {"model_type": "llama", "dtype": None}
    for number, (config, twin) in enumerate(
        [
            (CONFIG, {**CONFIG, "dtype": "bfloat16", "text_config": {"model_type": "llama", "dtype": "bfloat16"}}),
            (old, {**old, "torch_dtype": "bfloat16"}),
            (bare, {"model_type": "llama", "dtype": "bfloat16"}),
            ({"model_type": "llama"}, {"model_type": "llama", "dtype": "bfloat16"}),
        ]
    ):
        folders = [folder(tmp_path / f"{number}{name}", 0, config=config) for name in "ab"]
        out = tmp_path / f"{number}out"
        record = average(folders, [0.3, 0.7], out, "bfloat16")
        assert json.loads((out / "config.json").read_text()) == twin
        assert json.loads((out / "merge.json").read_text()) == record
        assert record["inputs"] == [str(path) for path in folders]
        assert (record["weights"], record["dtype"]) == ([0.3, 0.7], "bfloat16")


def vocabularies(tmp_path: Path, words: int | None, image: int | None = None) -> list[Path]:
    """Models of 12 and 16 rows."""
    text = {"model_type": "llama", "vocab_size": 12}
    config = {"model_type": "bunny", "head_rows": 16, "text_config": text}
    config |= {} if words is None else {"words": words}
    config |= {} if image is None else {"image_token_index": image}
    long = {**config, "text_config": {**text, "vocab_size": 16}}
    return [folder(tmp_path / "a", 0, config=config), folder(tmp_path / "b", 1, 2, rows=16, config=long)]


def test_vocabulary_rows_that_are_no_words_are_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bunny"):
        average(vocabularies(tmp_path, words=10, image=11), [0.5, 0.5], tmp_path / "out")
    assert "the first 12 rows are kept" in caplog.text
    got = written(tmp_path / "out")
    for name in NAMES[:2]:
        assert torch.equal(got[name], tensors(0)[name] * 0.5 + tensors(1, rows=16)[name][:12] * 0.5)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["text_config"]["vocab_size"], config["head_rows"]) == (12, 12)


@pytest.mark.parametrize(("words", "image", "used"), [(None, None, 16), (0, None, 16), (13, None, 13), (10, 12, 13)])
def test_rows_in_use_are_never_cut(tmp_path: Path, words: int | None, image: int | None, used: int) -> None:
    with pytest.raises(UserError, match=rf"a has 12, .*b has 16 rows; .* {used} are in use, more than the 12"):
        average(vocabularies(tmp_path, words, image), [0.5, 0.5], tmp_path / "out")


def test_tensors_that_do_not_match_are_listed_with_shapes(tmp_path: Path) -> None:
    ours = {f"w{i}": torch.zeros(i, 2) for i in range(7)}
    theirs = {**ours, "w3": torch.zeros(9, 2), "w4": torch.zeros(4), "x": torch.zeros(1)}
    del theirs["w0"], theirs["w1"]
    a, b = (write_sharded(tmp_path / name, each, 1, CONFIG) for name, each in (("a", ours), ("b", theirs)))
    with pytest.raises(UserError) as caught:
        average([a, b], [0.5, 0.5], tmp_path / "out")
    message = str(caught.value)
    assert (
        f"{b} does not fit {a}: w0 is missing, w1 is missing, x is only there, w3 is [9, 2] instead of [3, 2]"
        in message
    )
    assert "and 1 more" in message
    assert names_in(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "bunny-phi"),
        ("projector_type", "spp_v1"),
        ("s2_scales", [8, 16]),
        ("use_s2", True),
        ("image_token_index", 7),
        ("text_config", {"model_type": "phi"}),
    ],
)
def test_models_of_other_kinds_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    folders = [folder(tmp_path / "a", 0), folder(tmp_path / "b", 1, config={**CONFIG, key: value})]
    with pytest.raises(UserError, match=key):
        average(folders, [0.5, 0.5], tmp_path / "out")


def test_a_setting_that_is_off_is_one_that_is_not_there(tmp_path: Path) -> None:
    off = {**CONFIG, "use_s2": False, "s2_scales": [], "projector_type": "mlp2x_gelu"}
    average([folder(tmp_path / "a", 0), folder(tmp_path / "b", 1, config=off)], [0.5, 0.5], tmp_path / "out")


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    lora = tmp_path / "lora"
    shutil.copytree(a, lora)
    (lora / "adapter_config.json").write_text("{}")
    bad = tmp_path / "bad"
    shutil.copytree(a, bad)
    (bad / "config.json").write_text("{")
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[list[Path], list[float], Path, str | None, str]] = [
        ([], [], tmp_path / "out", None, "no models"),
        ([a, b], [1.0], tmp_path / "out", None, "2 models, 1 weights"),
        ([a, b], [1.0, float("nan")], tmp_path / "out", None, "not numbers"),
        ([a, b], [0.5, 0.5], tmp_path / "out", "bf16", "bfloat16"),
        ([a, b], [0.5, 0.5], b, None, "something is there already"),
        ([a, b], [0.5, 0.5], a / "config.json", None, "something is there already"),
        ([a, lora], [0.5, 0.5], tmp_path / "out", None, "a LoRA adapter"),
        ([a, bad], [0.5, 0.5], tmp_path / "out", None, "damaged"),
        ([a, empty], [0.5, 0.5], tmp_path / "out", None, "no model there"),
    ]
    before = names_in(tmp_path)
    for folders, weights, out, dtype, why in cases:
        with pytest.raises(UserError, match=why):
            average(folders, weights, out, dtype)
    assert names_in(tmp_path) == before


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    huge = tensors(1) | {NAMES[2]: torch.full((5, 4), 1e30)}
    write_sharded(b, huge, 1, CONFIG)
    with pytest.raises(UserError, match="does not fit float16"):
        average([a, b], [0.5, 0.5], tmp_path / "out", "float16")
    assert names_in(tmp_path) == ["a", "b"]


def test_a_stage_of_a_run_can_be_a_merge(tmp_path: Path) -> None:
    folders = [folder(tmp_path / name, 0) for name in "ab"]
    store = Store(tmp_path / "run")
    done = store.make("merged", lambda work: average(folders, (0.5, 0.5), work), settings={})
    assert names_in(done.path) == ["config.json", "manifest.json", "merge.json", "model.safetensors"]
    assert names_in(tmp_path / "run") == [".lock", "merged"]


KILLED = """
import sys, time
from pathlib import Path
import torch
from bunny.model import merge, tensor_writing
from bunny.model.tensor_views import Averaged
read = Averaged.read
def slow(self, name, start=0, stop=None):
    if name == "model.norm.weight":
        print("ready", flush=True)
        time.sleep(60)
    return read(self, name, start, stop)
Averaged.read = slow
merge.average([Path(sys.argv[1]), Path(sys.argv[2])], [0.5, 0.5], Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_leaves_no_model_and_the_next_attempt_succeeds(tmp_path: Path) -> None:
    a, b, out = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1), tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, a, b, out], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    with pytest.raises(UserError):
        open_tensors(tmp_path / ".out.part")
    average([a, b], [0.5, 0.5], out)
    assert names_in(tmp_path) == ["a", "b", "out"]
    assert len(whole(open_tensors(out))) == 5


def sparse_model(path: Path, shards: int) -> Path:
    """Eight tensors of 50 MB, all zeros, in files that take no room on the disk."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    places = {f"w{i}": f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i in range(8)}
    size = 2 * 6104 * 4096
    for shard in set(places.values()):
        names = [name for name in places if places[name] == shard]
        entries = {name: (i * size, (i + 1) * size) for i, name in enumerate(names)}
        header = {
            name: {"dtype": "BF16", "shape": [6104, 4096], "data_offsets": span} for name, span in entries.items()
        }
        text = json.dumps(header).encode()
        with (path / shard).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + len(names) * size)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return path


def peak_bytes(work: str, *words: object) -> int:
    """Peak resident memory of a process of its own. (`ru_maxrss` would count the process that started it, too.)"""
    begin = "import sys\nfrom pathlib import Path\nfrom bunny.model.merge import average"
    tell = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    command = [sys.executable, "-c", f"{begin}\n{work}\n{tell}", *map(str, words)]
    return 1024 * int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_stays_far_below_the_models_size(tmp_path: Path) -> None:
    a, b = sparse_model(tmp_path / "a", 1), sparse_model(tmp_path / "b", 3)
    baseline = peak_bytes("")
    code = "average([Path(sys.argv[1]), Path(sys.argv[2])], [0.3, 0.7], Path(sys.argv[3]))"
    peak = peak_bytes(code, a, b, tmp_path / "out")
    assert peak - baseline < 250_000_000, f"{(peak - baseline) / 1e6:.0f} MB for two models of 400 MB"
