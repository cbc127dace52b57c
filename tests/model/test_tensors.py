"""Tables of tensors: reading, views, writing; each beside its obvious whole-tensor twin."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bunny.core.errors import UserError
from bunny.model import tensor_writing
from bunny.model.tensor_views import Averaged, Cast, Cut, Renamed, WithLora, WithRows
from bunny.model.tensor_writing import write_tensors
from bunny.model.tensors import DTYPES, Joined, TensorTable, open_tensors

from .tables import InMemory, bits, names_in, same, whole, write_sharded

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def drawn(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def everything() -> dict[str, torch.Tensor]:
    """One tensor of every kind that a file can hold, and the odd shapes."""
    kinds = {f"kind.{name}": (drawn((5, 3)) * 3).abs().to(dtype) for name, dtype in DTYPES.items()}
    return {
        **kinds,
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 4),
        "línea": drawn((7,)),
        "deep": drawn((2, 3, 4)),
    }


def check_rows(table: TensorTable, twin: dict[str, torch.Tensor], start: int, stop: int | None) -> None:
    assert {name: (info.shape, info.dtype) for name, info in table.info.items()} == {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in twin.items()
    }
    for name, tensor in twin.items():
        expected = tensor[start:stop] if tensor.dim() else tensor
        got = table.read(name, start, stop)
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert torch.equal(bits(got), bits(expected)), name


rows = given(start=st.integers(0, 9), stop=st.none() | st.integers(0, 9))


@QUICK
@rows
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_rows_of_a_file_are_rows_of_the_tensor(tmp_path: Path, ending: str, start: int, stop: int | None) -> None:
    path = tmp_path / f"model.{ending}"
    if not path.exists():
        (save_file if ending == "safetensors" else torch.save)(everything(), path)
    check_rows(open_tensors(path), everything(), start, stop)


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_folder_is_the_union_of_its_shards(tmp_path: Path, shards: int) -> None:
    assert same(whole(open_tensors(write_sharded(tmp_path, everything(), shards, {}))), everything())


def test_pickled_shards_and_adapters_are_found_in_a_folder(tmp_path: Path) -> None:
    tensors = {"a": drawn((2, 2)), "b": drawn((3,))}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert same(whole(open_tensors(tmp_path)), tensors)
    for name in tensors:
        torch.save({name: tensors[name]}, tmp_path / f"pytorch_model-{name}.bin")
    places = {name: f"pytorch_model-{name}.bin" for name in tensors}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    table = open_tensors(tmp_path)
    assert isinstance(table, Joined)
    assert same(whole(table), tensors)


def test_parameters_come_without_a_gradient(tmp_path: Path) -> None:
    torch.save({"w": torch.nn.Parameter(torch.ones(2))}, tmp_path / "a.pth")
    assert not open_tensors(tmp_path / "a.pth").read("w").requires_grad


def small_file(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"w": drawn((4, 4)), "v": drawn((4,))}, folder / "model.safetensors")
    return folder / "model.safetensors"


def with_header(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: Any = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "git lfs pull"),
        (with_header(b"{not json", b""), "header cannot be read"),
        (with_header(["w"], b""), "header cannot be read"),
        (with_header({"w": {"dtype": "F32"}}, b""), "header cannot be read"),
        (with_header({"w": entry(0, 4, dtype="F7")}, bytes(4)), "numbers of the kind F7"),
        (with_header({"w": entry(0, 4, shape=(-1, -1))}, bytes(4)), "a size that is no size"),
        (with_header({"w": entry(0, 8)}, bytes(8)), "w does not lie where"),
        (with_header({"w": entry(0, 4), "v": entry(2, 6)}, bytes(8)), "does not lie where"),
        (with_header({"w": entry(0, 4), "v": entry(8, 12)}, bytes(12)), "v does not lie where"),
        (with_header({"w": entry(0, 4)}, bytes(3)), "4 bytes of weights are announced, 3 are there"),
        (with_header({"w": entry(0, 4)}, bytes(9)), "9 are there"),
        (with_header(b'{"w": {}, "w": {}}', b""), "w is there twice"),
    ],
)
def test_a_damaged_file_is_named_with_its_fault(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=why) as caught:
        open_tensors(tmp_path)
    assert str(path) in str(caught.value)


def test_every_cut_of_a_file_is_noticed(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="damaged"):
            open_tensors(path)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    table = open_tensors(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match="became shorter"):
        whole(table)


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("echo harm",)


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"w": Harmful()}, "more than tensors, which is not safe"),
        ({"w": Pair(1, 2)}, "more than tensors, which is not safe"),
        ([torch.ones(1)], "not a table of named tensors"),
        ({"model": {"w": torch.ones(1)}}, "not a table of named tensors"),
        (b"rubbish", "damaged"),
        (b"", "damaged"),
    ],
)
def test_a_pickled_file_that_is_no_table_of_tensors_is_refused(tmp_path: Path, content: Any, why: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=why) as caught:
        open_tensors(path)
    assert str(path) in str(caught.value)


def test_what_is_no_weight_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    for path, why in [
        (tmp_path, "no weights there"),
        (tmp_path / "a.txt", "not a weight"),
        (tmp_path / "b", "no such"),
    ]:
        with pytest.raises(UserError, match=why):
            open_tensors(path)


def test_a_bad_index_is_named_with_its_fault(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    cases: list[tuple[Any, str]] = [
        ([], "damaged"),
        ({"weight_map": 3}, "damaged"),
        ({"weight_map": {"w": "gone.safetensors"}}, "names the shard gone.safetensors, which is not there"),
        ({"weight_map": {"w": "../model.safetensors"}}, "names the shard"),
        ({"weight_map": {"w": "a.safetensors", "x": "a.safetensors"}}, "it should hold x and does not"),
        ({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}, "v: it is in both .*a.safetensors and .*b.safe"),
    ]
    for name in ("a", "b"):
        shutil.move(small_file(tmp_path), tmp_path / f"{name}.safetensors")
    for content, why in cases:
        index.write_text(json.dumps(content))
        with pytest.raises(UserError, match=why):
            open_tensors(tmp_path)


@QUICK
@rows
def test_a_view_gives_the_rows_of_its_twin(start: int, stop: int | None) -> None:
    tensors = {"w": drawn((6, 4)), "v": drawn((6,), 1, torch.bfloat16), "n": torch.arange(5), "s": torch.tensor(1.5)}
    table = InMemory(tensors)
    extra = drawn((2, 4), 2)
    check_rows(Renamed(table, {"x": "w", "s": "s"}), {"x": tensors["w"], "s": tensors["s"]}, start, stop)
    check_rows(Joined([table, InMemory({"x": extra})]), {**tensors, "x": extra}, start, stop)
    check_rows(Cut(table, {"w": 4, "n": 0}), {**tensors, "w": tensors["w"][:4], "n": tensors["n"][:0]}, start, stop)
    check_rows(WithRows(table, "w", extra), {**tensors, "w": torch.cat([tensors["w"], extra])}, start, stop)
    more = torch.tensor([0.1], dtype=torch.float64)
    check_rows(WithRows(table, "v", more), {**tensors, "v": torch.cat([tensors["v"], more.bfloat16()])}, start, stop)
    check_rows(Cast(table, {"w": torch.bfloat16}), {**tensors, "w": tensors["w"].bfloat16()}, start, stop)


@QUICK
@rows
def test_a_lora_is_added_in_float32(start: int, stop: int | None) -> None:
    # whole numbers, so that the products are exact whatever the order of the sums
    a, b = (drawn((2, 4), 1) * 4).round(), (drawn((6, 2), 2) * 4).round()
    base = {"w": (drawn((6, 4)) * 4).round().bfloat16(), "c": (drawn((6, 2, 2)) * 4).round(), "v": drawn((6,))}
    adapter = InMemory({"a": a.half(), "b": b.half(), "ca": a.view(2, 2, 2), "cb": b.view(6, 2, 1)})
    pairs = {"w": ("a", "b"), "c": ("ca", "cb")}
    twin = {"w": base["w"].float() + 2 * b @ a, "c": base["c"] + 0.5 * (b @ a).view(6, 2, 2), "v": base["v"]}
    table = WithLora(InMemory(base), adapter, pairs, {"w": 2.0, "c": 0.5})
    check_rows(table, twin, start, stop)
    halved = WithLora(InMemory(base), adapter, {"w": ("a", "b")}, 2.0, torch.float16)
    check_rows(halved, {**base, "w": twin["w"].half()}, start, stop)


def test_a_lora_equals_the_one_product_to_float32_accuracy() -> None:
    w, a, b = drawn((64, 32), 0, torch.float16), drawn((8, 32), 1), drawn((64, 8), 2)
    got = WithLora(InMemory({"w": w}), InMemory({"a": a, "b": b}), {"w": ("a", "b")}, 0.25).read("w", 10, 50)
    torch.testing.assert_close(got.double(), (w.double() + 0.25 * b.double() @ a.double())[10:50], rtol=0, atol=1e-5)


@QUICK
@given(
    start=st.integers(0, 9),
    stop=st.none() | st.integers(0, 9),
    kinds=st.lists(st.sampled_from(FLOATS), min_size=1, max_size=3),
    weights=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
)
def test_an_average_is_the_sum_of_products(
    start: int, stop: int | None, kinds: list[torch.dtype], weights: list[float]
) -> None:
    many = [{"w": drawn((7, 5), seed, kind), "s": drawn((), seed, kind)} for seed, kind in enumerate(kinds)]
    wide = torch.float64 if torch.float64 in kinds else torch.float32
    weights = weights[: len(kinds)]
    twin = {}
    for name in ("w", "s"):
        twin[name] = many[0][name].to(wide) * weights[0]
        for tensors, weight in zip(many[1:], weights[1:], strict=True):
            twin[name] = twin[name] + tensors[name].to(wide) * weight
    whole_number = {"n": torch.arange(4)}
    table = Averaged([InMemory({**tensors, **whole_number}) for tensors in many], weights)
    check_rows(table, {**twin, **whole_number}, start, stop)


def test_one_model_with_weight_one_stays_as_it_is() -> None:
    tensors = {"w": drawn((5, 3), 0, torch.bfloat16)}
    assert same(whole(Averaged([InMemory(tensors)], [1.0])), {"w": tensors["w"].float()})


def test_weights_that_do_not_sum_to_one_are_told(caplog: pytest.LogCaptureFixture) -> None:
    tables = [InMemory({"w": torch.ones(1)})] * 3
    with caplog.at_level(logging.WARNING, logger="bunny"):
        Averaged(tables, [1 / 3] * 3)
        assert not caplog.messages
        Averaged(tables, [0.5] * 3)
    assert "sum to 1.5" in caplog.text


def test_views_refuse_what_does_not_fit() -> None:
    table = InMemory({"w": drawn((4, 2)), "n": torch.arange(3), "s": torch.tensor(1.0)})
    other = InMemory({"w": drawn((4, 3)), "n": torch.arange(3) + 1, "s": torch.tensor(1)})
    adapter = InMemory({"a": drawn((2, 3)), "b": drawn((4, 2)), "b3": drawn((4, 3)), "a2": drawn((2, 2))})
    refused: list[Any] = [
        lambda: Renamed(table, {"x": "wx"}),
        lambda: Joined([table, other]),
        lambda: Cut(table, {"w": 5}),
        lambda: Cut(table, {"s": 1}),
        lambda: WithRows(table, "w", drawn((1, 3))),
        lambda: WithRows(table, "s", drawn(())),
        lambda: Cast(table, {"x": torch.float16}),
        lambda: WithLora(table, adapter, {"w": ("a", "b")}, 1.0),
        lambda: WithLora(table, adapter, {"w": ("a2", "b3")}, 1.0),
        lambda: WithLora(table, adapter, {"w": ("a2", "missing")}, 1.0),
        lambda: WithLora(table, adapter, {"x": ("a2", "b")}, 1.0),
        lambda: Averaged([table, other], [0.5, 0.5]),
        lambda: Averaged([Renamed(each, {"s": "s"}) for each in (table, other)], [0.5, 0.5]),
        lambda: Averaged([Renamed(each, {"n": "n"}) for each in (table, other)], [0.5, 0.5]).read("n"),
        lambda: Cast(InMemory({"w": torch.tensor([1.0, 7e4])}), {"w": torch.float16}).read("w"),
    ]
    for make in refused:
        with pytest.raises(UserError):
            make()
    assert WithLora(table, adapter, {"w": ("a2", "b")}, 1.0).read("w").shape == (4, 2)


def test_what_is_written_is_what_safetensors_writes(tmp_path: Path) -> None:
    save_file(everything(), tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    (path,) = write_tensors(InMemory(everything()), tmp_path / "ours")
    assert path.read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    assert names_in(tmp_path / "ours") == ["model.safetensors"]


@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16, torch.float32])
def test_stored_numbers_are_rounded_as_torch_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None, piece: int
) -> None:
    monkeypatch.setattr(tensor_writing, "PIECE_BYTES", piece)
    tensors = {"w": drawn((50, 7)), "b": drawn((9,), 1, torch.bfloat16), "n": torch.arange(4), "s": torch.tensor(0.1)}
    write_tensors(InMemory(tensors), tmp_path, dtype)
    twin = {name: t.to(dtype) if dtype and t.is_floating_point() else t for name, t in tensors.items()}
    assert same(load_file(tmp_path / "model.safetensors"), twin)


def test_shards_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2)
    )
    model.save_pretrained(tmp_path / "theirs", max_shard_size=9000)
    written = write_tensors(InMemory(model.state_dict()), tmp_path / "ours", shard_bytes=9000)
    names = sorted(path.name for path in (tmp_path / "theirs").glob("*.safetensors"))
    assert len(names) > 2
    assert sorted(path.name for path in written) == names
    for name in names:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    ours, theirs = (
        json.loads((tmp_path / side / "model.safetensors.index.json").read_text()) for side in ("ours", "theirs")
    )
    assert ours["weight_map"] == theirs["weight_map"]
    assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]
    shutil.copy(tmp_path / "theirs" / "config.json", tmp_path / "ours")
    again, info = LlamaForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert same(again.state_dict(), model.state_dict())
    with safe_open(tmp_path / "ours" / names[0], "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_too_full_a_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("Usage", "free")(3_000_000_000))
    from bunny.model.tensors import TensorInfo

    table = InMemory({})
    table.info = {"w": TensorInfo((1_000_000_000,), torch.float32)}
    with pytest.raises(UserError, match=r"4\.0 GB are needed, 3\.0 GB are free"):
        write_tensors(table, tmp_path)
    assert names_in(tmp_path) == []


def test_a_folder_that_holds_weights_is_left_alone(tmp_path: Path) -> None:
    small_file(tmp_path)
    with pytest.raises(UserError, match="holds weights already"):
        write_tensors(InMemory({"w": torch.ones(1)}), tmp_path)


class Failing(InMemory):
    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        if name == "z":
            raise OSError(28, "No space left on device")
        return super().read(name, start, stop)


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    table = Failing({"a": torch.ones(100), "z": torch.ones(100)})
    with pytest.raises(OSError, match="No space left") as caught:
        write_tensors(table, tmp_path, shard_bytes=400)
    assert caught.value.filename == str(tmp_path / "model-00002-of-00002.safetensors")
    assert names_in(tmp_path) == []


def test_kinds_without_a_name_in_the_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="complex128"):
        write_tensors(InMemory({"w": torch.ones(1, dtype=torch.complex128)}), tmp_path)


def test_progress_is_told_in_megabytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bunny"):
        write_tensors(InMemory({"w": torch.zeros(600_000), "v": torch.zeros(3)}), tmp_path, description="counting")
    assert caplog.messages[-1].startswith("counting 3/3")
