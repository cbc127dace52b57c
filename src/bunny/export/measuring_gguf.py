"""What llama.cpp computes from GGUF files and the talks of `measuring.py`: in a process of its own, which it may end.

This file imports nothing of the package. In: the two files, the folder of probes, what transformers computed. Out:
`NUMBER.npz` for each probe: ids (a picture's places: -1), the pictures' embeddings, logits at the last place of the
prompt and behind every token of the answer that transformers gave. Pictures come as transformers prepared them, in
bytes, so that towers are compared and nothing else; `raw` are the embeddings of pictures that llama.cpp prepares.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import mtmd_cpp
from PIL import Image

MARK = "<image>"
F32 = 0  # ggml's number of the type, for keys and values: the cache shall not round
BATCH = 512


class Engine:
    """A language model with its tower, loaded; one talk at a time."""

    def __init__(self, text: Path, mmproj: Path, places: int, threads: int) -> None:
        llama_cpp.llama_backend_init()
        self._quiet = llama_cpp.llama_log_callback(lambda level, words, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        mtmd_cpp.mtmd_log_set(self._quiet, ctypes.c_void_p(0))
        mtmd_cpp.mtmd_helper_log_set(self._quiet, ctypes.c_void_p(0))
        self.model = llama_cpp.llama_model_load_from_file(str(text).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise ValueError(f"llama.cpp cannot load {text}")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = places, BATCH, BATCH
        settings.type_k = settings.type_v = F32
        settings.flash_attn_type = 0
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        tower = mtmd_cpp.mtmd_context_params_default()
        tower.use_gpu, tower.n_threads, tower.warmup, tower.flash_attn_type = False, threads, False, 0
        self.tower = mtmd_cpp.mtmd_init_from_file(str(mmproj).encode(), self.model, tower)
        if not self.context or not self.tower:
            raise ValueError(f"llama.cpp cannot run {mmproj}")
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.rows = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.width = llama_cpp.llama_model_n_embd(self.model)

    def embed(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The embeddings (N, width) of one picture (height, width, 3)."""
        chunks = self._chunks(MARK, [picture])
        kinds = [(mtmd_cpp.mtmd_input_chunk_get_type(chunk), chunk) for chunk in self._each(chunks)]
        (chunk,) = (chunk for kind, chunk in kinds if kind == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE)
        kept = self._encoded(chunk)
        mtmd_cpp.mtmd_input_chunks_free(chunks)
        return kept

    def answer(self, text: str, pictures: npt.NDArray[np.uint8], forced: list[int]) -> dict[str, npt.NDArray[Any]]:
        """ids, embeddings (pictures, N, width), logits (len(forced), rows) of a prompt and the forced answer."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        chunks = self._chunks(text, pictures)
        ids: list[int] = []
        seen: list[npt.NDArray[np.float32]] = []
        past = ctypes.c_int32(0)
        for chunk in self._each(chunks):
            count = int(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk))
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
                found = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(ctypes.c_size_t()))
                tokens = [int(found[place]) for place in range(count)] if found else []
                ids += tokens
                self._decode(tokens)
                past.value += count
            else:
                ids += [-1] * count
                seen.append(self._see(chunk, past))
        mtmd_cpp.mtmd_input_chunks_free(chunks)
        logits = [self._logits()]
        for token in forced[:-1]:
            self._decode([token])
            logits.append(self._logits())
        pictures_seen = np.stack(seen) if seen else np.zeros((0, 0, self.width), np.float32)
        return {"ids": np.array(ids), "pictures": pictures_seen, "logits": np.stack(logits)}

    def _chunks(self, text: str, pictures: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]) -> Any:
        marker = mtmd_cpp.mtmd_default_marker()
        words = text.encode().replace(MARK.encode(), marker)
        bitmaps = (ctypes.c_void_p * len(pictures))()
        for number, picture in enumerate(pictures):
            raw = np.ascontiguousarray(picture)
            data = raw.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
            bitmaps[number] = mtmd_cpp.mtmd_bitmap_init(raw.shape[1], raw.shape[0], data)
        asked = mtmd_cpp.mtmd_input_text()
        asked.text, asked.text_len, asked.add_special, asked.parse_special = words, len(words), True, True
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        wrong = mtmd_cpp.mtmd_tokenize(self.tower, chunks, ctypes.byref(asked), bitmaps, len(pictures))
        for bitmap in bitmaps:
            mtmd_cpp.mtmd_bitmap_free(bitmap)
        if wrong:
            raise ValueError(f"llama.cpp does not take the prompt ({wrong})")
        return chunks

    def _each(self, chunks: Any) -> Iterator[Any]:
        for number in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
            yield mtmd_cpp.mtmd_input_chunks_get(chunks, number)

    def _encoded(self, chunk: Any) -> npt.NDArray[np.float32]:
        if mtmd_cpp.mtmd_encode_chunk(self.tower, chunk):
            raise ValueError("llama.cpp does not encode the picture")
        count = int(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk))
        raw = mtmd_cpp.mtmd_get_output_embd(self.tower)
        return np.array(np.ctypeslib.as_array(raw, shape=(count, self.width)), dtype=np.float32)

    def _see(self, chunk: Any, past: ctypes.c_int32) -> npt.NDArray[np.float32]:
        """A picture's embeddings (N, width); they are put into the language model too."""
        kept = self._encoded(chunk)
        own = kept.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        nobody = mtmd_cpp.mtmd_helper_post_decode_callback()
        wrong = mtmd_cpp.mtmd_helper_decode_image_chunk(
            self.tower, self.context, chunk, own, past, 0, BATCH, ctypes.byref(past), nobody, None
        )
        if wrong:
            raise ValueError("llama.cpp does not take the picture's embeddings")
        return kept

    def _decode(self, tokens: list[int]) -> None:
        for start in range(0, len(tokens), BATCH):
            some = tokens[start : start + BATCH]
            array = (llama_cpp.llama_token * len(some))(*some)
            if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(some))):
                raise ValueError("llama.cpp does not take the tokens")

    def _logits(self) -> npt.NDArray[np.float32]:
        raw = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.array(np.ctypeslib.as_array(raw, shape=(self.rows,)), dtype=np.float32)


def main(text: str, mmproj: str, probes: str, ours: str, out: str, threads: str) -> None:
    """Measure every probe of which `ours` holds what transformers computed."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    talks = json.loads((Path(probes) / "probes.json").read_text(encoding="utf-8"))
    mine = [np.load(Path(ours) / f"{number}.npz") for number in range(len(talks))]
    places = max(len(one["ids"]) + len(one["answer"]) for one in mine) + 8
    engine = Engine(Path(text), Path(mmproj), places, int(threads))
    for number, (talk, one) in enumerate(zip(talks, mine, strict=True)):
        found: dict[str, Any] = engine.answer(str(one["text"]), one["prepared"], one["answer"].tolist())
        raw = [engine.embed(np.asarray(Image.open(Path(probes) / name).convert("RGB"))) for name in talk["pictures"]]
        np.savez(folder / f"{number}.npz", **found, raw=np.stack(raw) if raw else np.zeros(0, np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
