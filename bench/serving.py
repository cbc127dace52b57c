"""Tokens a second and time to the first token: `bunny serve` beside `transformers serve` and the original's worker.

    python bench/serving.py --rival ENV/bin/transformers --server-core 1 --client-core 0 --json \
        > bench/results/serving.json
    python bench/serving.py --rival ENV/bin/transformers --size tiny          # seconds: does it run at all

`--rival` is the command of an environment with `transformers[serving]` of the same release and the same torch. All
serve one random model (SigLIP-B/16-224, 196 tokens a picture, SmolLM2-135M, float32) over HTTP, on the same core with
one thread; the clients run on another core and ask greedily for the same number of tokens. All servers are up; each
load is put on one after the other, so that whatever else the machine does in those minutes meets all of them. A random
model never ends an answer, so all answers are equally long; they are counted, and the texts compared.

- `ours`: `bunny serve` as it comes
- `transformers`: `transformers serve` as it comes; its continuous batching is for text models only
- `original`: `bench/serving_original.py`

Loads: `new`: every request shows a picture that was never seen before; `seen`: another question about one of the
pictures of `new` (four of them). Every client asks again as soon as it is answered. `first token`: one client, the
median over further questions about a picture that was asked about before. `processor_seconds` are the server's, which
other programs on its core do not lengthen; tokens a second are by the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from serving_model import write_models

HERE = Path(__file__).parent
LIMITS = httpx.Limits(max_connections=64)
QUESTIONS = ("What is in the picture?", "Is there a red car on the left side?", "Which kind of tree is it?")
QUESTIONS += ("Describe everything with one word.", "What colour is the old house?", "Is there a dog on the bench?")


@dataclass(frozen=True)
class Asked:
    """One request. picture: PNG bytes."""

    picture: bytes
    question: str
    max_tokens: int


@dataclass(frozen=True)
class Answered:
    """What came back. seconds: to the first text, to the end."""

    text: str
    tokens: int
    first_seconds: float
    seconds: float


@dataclass(frozen=True)
class Way:
    """How to serve and how to ask. command: of a server at a port. pieces: (text, tokens so far or 0) of an answer."""

    command: Callable[[int], list[str]]
    ready: str
    pieces: Callable[[httpx.AsyncClient, Asked], AsyncIterator[tuple[str, int]]]


async def openai_pieces(client: httpx.AsyncClient, asked: Asked) -> AsyncIterator[tuple[str, int]]:
    """An answer by OpenAI's protocol."""
    url = "data:image/png;base64," + base64.b64encode(asked.picture).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": asked.question}]
    body = {
        "model": client.headers["model"],
        "messages": [{"role": "user", "content": content}],
        "max_tokens": asked.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError((await response.aread()).decode())
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "choices" not in event:
                raise RuntimeError(line)
            text = "".join((choice["delta"].get("content") or "") for choice in event["choices"])
            yield text, int((event.get("usage") or {}).get("completion_tokens", 0))


async def worker_pieces(client: httpx.AsyncClient, asked: Asked) -> AsyncIterator[tuple[str, int]]:
    """An answer by the protocol of the original's worker; its tokens are as many as were asked for."""
    prompt = f"<|im_start|>user\n<image>\n{asked.question}<|im_end|>\n<|im_start|>assistant\n"
    images = [base64.b64encode(asked.picture).decode()]
    body = {"prompt": prompt, "images": images, "max_new_tokens": asked.max_tokens}
    known, rest = prompt, b""
    async with client.stream("POST", "/worker_generate_stream", json=body) as response:
        async for chunk in response.aiter_bytes():
            *whole, rest = (rest + chunk).split(b"\0")
            for one in whole:
                text = json.loads(one)["text"]
                yield text.removeprefix(known), asked.max_tokens
                known = text


async def answer(way: Way, client: httpx.AsyncClient, asked: Asked) -> Answered:
    started, first, text, tokens = time.perf_counter(), 0.0, "", 0
    async for piece, count in way.pieces(client, asked):
        text, tokens = text + piece, max(tokens, count)
        if text and not first:
            first = time.perf_counter() - started
    return Answered(text, tokens, first, time.perf_counter() - started)


async def load(way: Way, client: httpx.AsyncClient, clients: int, asked: Sequence[Asked]) -> list[Answered]:
    """All answers, from so many clients that ask one after the other what is still to be asked."""
    todo, answers = iter(enumerate(asked)), {}

    async def ask() -> None:
        for number, one in todo:
            answers[number] = await answer(way, client, one)

    await asyncio.gather(*(ask() for _ in range(clients)))
    return [answers[number] for number in range(len(asked))]


def figures(answers: Sequence[Answered], wall_seconds: float, processor_seconds: float) -> dict[str, float]:
    first = sorted(one.first_seconds for one in answers)
    return {
        "requests": len(answers),
        "tokens": sum(one.tokens for one in answers),
        "wall_seconds": round(wall_seconds, 3),
        "processor_seconds": round(processor_seconds, 2),
        "tokens_per_second": round(sum(one.tokens for one in answers) / wall_seconds, 2),
        "first_token_seconds_median": round(statistics.median(first), 3),
        "first_token_seconds_last": round(first[-1], 3),
    }


class Work:
    """What is asked of every way, the same in the same order. Pictures are noise drawn from a seed."""

    def __init__(self, side: int, max_tokens: int, clients: Sequence[int], rounds: int) -> None:
        self.side, self.max_tokens, self.clients, self.rounds = side, max_tokens, clients, rounds
        self._made = 0

    def loads(self) -> Iterator[tuple[str, int, list[Asked]]]:
        """(load, clients, what they ask)."""
        seen: list[bytes] = []
        for clients in self.clients:
            count = clients * (self.rounds if clients < 16 else 1)
            new = [self.asked(self.picture(), number) for number in range(count)]
            seen = (seen + [one.picture for one in new])[:4]
            yield "new", clients, new
        for clients in self.clients:
            count = clients * (self.rounds if clients < 16 else 1)
            yield "seen", clients, [self.asked(seen[n % len(seen)], n // len(seen) + 1) for n in range(count)]

    def first(self) -> list[Asked]:
        """Several questions about one picture, short answers."""
        picture = self.picture()
        return [Asked(picture, question, 4) for question in QUESTIONS]

    def asked(self, picture: bytes, number: int) -> Asked:
        return Asked(picture, QUESTIONS[number % len(QUESTIONS)], self.max_tokens)

    def picture(self) -> bytes:
        self._made += 1
        noise = np.random.default_rng(self._made).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize((self.side, self.side), Image.Resampling.BICUBIC).save(file, "png")
        return file.getvalue()


@dataclass
class Server:
    """A way that is up, and what was measured of it."""

    way: Way
    client: httpx.AsyncClient
    process: int
    result: dict[str, Any]
    texts: list[str]

    @property
    def processor_seconds(self) -> float:
        """That its process has taken so far."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(servers: Mapping[str, Server], work: Work) -> None:
    """Put every load on every server."""
    warm = work.asked(work.picture(), 0)
    for server in servers.values():
        await answer(server.way, server.client, warm)  # what is made at first use
    for kind, clients, asked in work.loads():
        for name, server in servers.items():
            started, processor = time.perf_counter(), server.processor_seconds
            answers = await load(server.way, server.client, clients, asked)
            row = figures(answers, time.perf_counter() - started, server.processor_seconds - processor)
            server.result.setdefault(kind, {})[str(clients)] = row
            server.texts += [one.text for one in answers]
            print(name, kind, clients, row, file=sys.stderr, flush=True)
    firsts: dict[str, list[float]] = {name: [] for name in servers}
    for asked_one in work.first():
        for name, server in servers.items():
            firsts[name].append((await answer(server.way, server.client, asked_one)).first_seconds)
    for name, (new, *seen) in firsts.items():
        row = {"new_seconds": new, "seen_seconds_median": statistics.median(seen), "seen_seconds_best": min(seen)}
        servers[name].result["first_token"] = {key: round(value, 4) for key, value in row.items()}
        print(name, servers[name].result["first_token"], file=sys.stderr, flush=True)


async def measure_all(chosen: Mapping[str, tuple[Way, str]], core: int, work: Work) -> dict[str, Server]:
    """All servers, measured."""
    servers: dict[str, Server] = {}
    with ExitStack() as up:
        for name, (way, model) in chosen.items():
            url, process = up.enter_context(serving(way, core))
            client = httpx.AsyncClient(base_url=url, headers={"model": model}, timeout=3600, limits=LIMITS)
            servers[name] = Server(way, client, process, {}, [])
        await measure(servers, work)
        for server in servers.values():
            await server.client.aclose()
    return servers


@contextmanager
def serving(way: Way, core: int) -> Iterator[tuple[str, int]]:
    """(address, process id) of a server on one core, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = ["taskset", "-c", str(core), *way.command(port)]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env=os.environ | threads, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url + way.ready, server, log)
            yield url, server.pid  # `taskset` becomes the server: the same process
        finally:
            server.terminate()
            server.wait(60)


def _wait(url: str, server: subprocess.Popen[bytes], log: Any) -> None:
    for _ in range(1200):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if server.poll() is not None:
            log.seek(0)
            raise RuntimeError(log.read().decode())
        time.sleep(0.25)
    raise RuntimeError(f"{url}: not ready after five minutes")


def ways(bunny: Path, llava: Path, rival: str) -> dict[str, tuple[Way, str]]:
    """name -> (way, what the model is called there)."""
    command = str(Path(sys.executable).with_name("bunny"))
    worker = [sys.executable, str(HERE / "serving_original.py"), str(llava)]
    return {
        "ours": (
            Way(lambda port: [command, "serve", f"bench={bunny}", "--port", str(port)], "/ready", openai_pieces),
            "bench",
        ),
        "transformers": (
            Way(lambda port: [rival, "serve", str(llava), "--port", str(port)], "/health", openai_pieces),
            str(llava),
        ),
        "original": (Way(lambda port: [*worker, str(port)], "/health", worker_pieces), ""),
    }


def compare(results: Mapping[str, Any], texts: Mapping[str, list[str]]) -> dict[str, Any]:
    """Ours by each of the others, and how many answers are the same text."""
    compared: dict[str, Any] = {}
    for name in results:
        if name == "ours" or "ours" not in results:
            continue
        mine, its = results["ours"], results[name]
        compared[name] = {
            "throughput": {
                kind: {
                    clients: round(mine[kind][clients]["tokens_per_second"] / row["tokens_per_second"], 2)
                    for clients, row in its[kind].items()
                }
                for kind in ("new", "seen")
            },
            "tokens_per_processor_second": {
                kind: {
                    clients: round(row["processor_seconds"] / mine[kind][clients]["processor_seconds"], 2)
                    for clients, row in its[kind].items()
                }
                for kind in ("new", "seen")
            },
            "first_token_of_a_seen_picture": {
                which: round(its["first_token"][which] / mine["first_token"][which], 2)
                for which in ("seen_seconds_median", "seen_seconds_best")
            },
            "same_answers": sum(a.strip() == b.strip() for a, b in zip(texts["ours"], texts[name], strict=True)),
            "answers": len(texts["ours"]),
        }
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", required=True, help="the `transformers` command of its own environment")
    parser.add_argument("--ways", nargs="+", choices=("ours", "transformers", "original"))
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=2, help="requests of each client; with 16 clients one")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--server-core", type=int, default=1)
    parser.add_argument("--client-core", type=int, default=0)
    parser.add_argument("--models", type=Path, help="folder to write the models to, or with them; default: a new one")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.client_core})
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.models or Path(temporary)
        bunny, llava = folder / "bunny", folder / "llava"
        if not llava.exists():
            write_models(folder, args.size)
        known = ways(bunny, llava, args.rival)
        chosen = {name: known[name] for name in known if not args.ways or name in args.ways}
        work = Work(224, args.max_tokens, args.clients, args.rounds)
        servers = asyncio.run(measure_all(chosen, args.server_core, work))
    results = {name: server.result for name, server in servers.items()}
    texts = {name: server.texts for name, server in servers.items()}
    facts = {"size": args.size, "max_tokens": args.max_tokens, "dtype": "float32", **where()}
    result = {**facts, "ways": results, "ours_by": compare(results, texts)}
    print(json.dumps(result, indent=1 if args.json else None))


def where() -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    chip = f"{platform.machine()}, {os.cpu_count()} cores, one for the server"
    return {"machine": f"{chip}, torch {torch.__version__}", "threads": 1, "commit": commit.strip()}


if __name__ == "__main__":
    main()
