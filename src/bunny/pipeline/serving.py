"""A server for models: folders (or another server behind ours) in, answers over HTTP out, until it is told to end.

What is wrong with the words of the command is said before anything is loaded; the models load beside the server, which
says of itself that it is not ready until they have.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bunny.core.chat import ChatEngine
from bunny.core.errors import UserError
from bunny.core.log import log

if TYPE_CHECKING:
    from bunny.serve.page import Shelf
    from bunny.serve.pictures import Pictures
    from bunny.serve.service import Service

KEY = "BUNNY_API_KEY"
UPSTREAM_KEY = "BUNNY_UPSTREAM_KEY"
SHORTEST_KEY = 16  # letters


@dataclass(frozen=True, slots=True)
class Serving:
    """What `bunny serve` is told. models: `FOLDER` or `NAME=FOLDER`. url, upstream_models: another server's.

    keys_file: one key a line. running: answers computed together; queue: requests that wait for that.
    """

    models: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    keys_file: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    allow_domains: tuple[str, ...] = ()
    media_root: Path | None = None
    url: str = ""
    upstream_models: tuple[str, ...] = ()
    curation: Path | None = None
    evaluation: Path | None = None
    running: int = 8
    queue: int = 64
    timeout_seconds: float = 300.0
    drain_seconds: float = 30.0


def serve(wanted: Serving) -> None:
    """Serve until told to end. Raises UserError."""
    try:
        from bunny.serve.access import Access
        from bunny.serve.app import Rules, make_app
        from bunny.serve.curation import listen
        from bunny.serve.limits import Limits
        from bunny.serve.running import Running
        from bunny.serve.service import Service
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", fix="pip install 'bunny-vlm[serve]'") from None
    keys = _keys(wanted)
    named = _named(wanted)
    limits = replace(Limits(), timeout_seconds=wanted.timeout_seconds)
    access = Access(wanted.host, keys, tuple(name.lower() for name in wanted.allow_hosts), wanted.allow_origins)
    rules = Rules(access, limits, _pictures(wanted, limits), _shelves(wanted, bool(keys)))
    service = Service(list(named), limits.requests)

    def load(service: Service) -> None:
        for name, place in named.items():
            service.opened(_engine(name, place, wanted))
        log.info("ready: %s", ", ".join(named))

    listening = listen(wanted.host, wanted.port)
    _tell(listening, wanted, next(iter(named)), bool(keys))
    Running(make_app(service, rules), service, load, limits, wanted.drain_seconds).serve_until_told(listening)


def _named(wanted: Serving) -> dict[str, str]:
    """Where each model is, by its name: a folder, or the other server's name for it."""
    if wanted.url:
        if wanted.models:
            raise UserError("--url and model folders", fix="serve the one or the other")
        names = wanted.upstream_models or _listed(wanted.url)
        return {name: name for name in names}
    if not wanted.models:
        raise UserError("which model?", fix="give its folder: bunny serve runs/demo/model")
    named: dict[str, str] = {}
    for word in wanted.models:
        name, equals, place = word.partition("=")
        if not equals or Path(word).exists():
            name, place = _own_name(Path(word)), word
        if name in named:
            raise UserError(f"two models are called `{name}`", fix="name them: small=FOLDER large=FOLDER")
        _check_folder(Path(place))
        named[name] = place
    return named


def _check_folder(folder: Path) -> None:
    """Whether weights are there that cannot run code when they are read."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no model folder (no config.json)", fix="give one such as runs/demo/model")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: no weights in safetensors", fix="only these are served: import or save it again")


def _own_name(folder: Path) -> str:
    """The folder's name; for the `model` of a run, the run's."""
    real = folder.resolve()
    return real.parent.name if real.name == "model" and real.parent.name else real.name or "model"


def _listed(url: str) -> tuple[str, ...]:
    from bunny.serve.upstream import listed

    return listed(url, os.environ.get(UPSTREAM_KEY, ""))


def _engine(name: str, place: str, wanted: Serving) -> ChatEngine:
    if wanted.url:
        from bunny.serve.upstream import Upstream

        return Upstream(wanted.url, place, os.environ.get(UPSTREAM_KEY, ""))
    from bunny.infer.engine import Engine
    from bunny.model.build import load

    log.info("loading %s", place)
    model, processor = load(place)
    return Engine(model, processor, name=name, running=wanted.running, queue=wanted.queue)


def _keys(wanted: Serving) -> tuple[str, ...]:
    """The keys that are taken. Raises UserError if there is none where one is demanded, or a short one."""
    from bunny.serve.guarding import is_loopback

    found = [os.environ[KEY]] if os.environ.get(KEY) else []
    if wanted.keys_file is not None:
        try:
            lines = wanted.keys_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{wanted.keys_file}: cannot be read", fix="a text file, one key a line") from None
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UserError(f"{wanted.keys_file}: no key in it", fix="write one a line")
    if any(len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() for key in found):
        raise UserError(f"a key must have {SHORTEST_KEY} plain letters or more", fix="make one: openssl rand -hex 24")
    if not found and not is_loopback(wanted.host):
        raise UserError(
            f"--host {wanted.host} lets others in, without a key",
            fix=f"set {KEY} or give --api-key-file (openssl rand -hex 24 makes a key)",
        )
    return tuple(found)


def _pictures(wanted: Serving, limits: object) -> Pictures:
    from bunny.serve.fetch import Fetcher
    from bunny.serve.limits import Limits
    from bunny.serve.media import MediaFolder
    from bunny.serve.pictures import Pictures

    assert isinstance(limits, Limits)
    fetcher = Fetcher(wanted.allow_domains, limits) if wanted.allow_domains else None
    return Pictures(limits, fetcher, MediaFolder(wanted.media_root) if wanted.media_root else None)


def _shelves(wanted: Serving, keyed: bool) -> list[Shelf]:
    """Folders that the page links to."""
    if keyed and (wanted.curation or wanted.evaluation):
        raise UserError(
            "--curation and --evaluation show their folders to everybody, and there is an API key",
            fix="serve them without one, on this machine only",
        )
    found: list[Shelf] = []
    if wanted.curation:
        from bunny.pipeline.view import explorer_of
        from bunny.serve.curation import shelf

        found.append(shelf(explorer_of(wanted.curation)))
    if wanted.evaluation:
        from bunny.serve.page import reports

        found.append(reports(wanted.evaluation))
    return found


def _tell(listening: socket.socket, wanted: Serving, model: str, keyed: bool) -> None:
    """Where the server is, what it wants, and what to try."""
    number = listening.getsockname()[1]
    shown = (
        "127.0.0.1" if wanted.host in ("0.0.0.0", "::") else f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    )
    address = f"http://{shown}:{number}"
    log.info("page  %s/   API  %s/v1   (Ctrl-C ends it)", address, address)
    log.info("an API key is %s", "needed" if keyed else "not needed: only this machine can ask")
    key = f' -H "Authorization: Bearer ${KEY}"' if keyed else ""
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    log.info("try   curl %s/v1/chat/completions -H 'Content-Type: application/json'%s -d '%s'", address, key, body)
