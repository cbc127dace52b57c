"""`bunny serve`: its words and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bunny.cli.guard import guarded

Several = list[str] | None

Models = Annotated[Several, typer.Argument(metavar="[NAME=]FOLDER...", help="Model folders.")]
Host = Annotated[str, typer.Option("--host", help="Address to serve at; one beyond this machine needs a key.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")]
Keys = Annotated[
    Path | None,
    typer.Option("--api-key-file", metavar="FILE", help="Keys that may ask, one a line; or one in BUNNY_API_KEY."),
]
Hosts = Annotated[Several, typer.Option("--allow-host", metavar="NAME", help="Another name of this server.")]
Origins = Annotated[
    Several, typer.Option("--allow-origin", metavar="URL", help="A site whose pages may ask: https://example.org.")
]
Domains = Annotated[
    Several,
    typer.Option("--allow-domain", metavar="NAME", help="Fetch pictures from this host; .NAME: from those below."),
]
Media = Annotated[
    Path | None, typer.Option("--media-root", metavar="FOLDER", help="Pictures may be named by their file in it.")
]
Backend = Annotated[str, typer.Option("--backend", metavar="KIND", help="bunny, or openai: another server answers.")]
Url = Annotated[str, typer.Option("--url", help="Its address, with /v1. Its key: BUNNY_UPSTREAM_KEY.")]
Upstreams = Annotated[
    Several, typer.Option("--upstream-model", metavar="NAME", help="Its models to offer; default: all.")
]
Curation = Annotated[Path | None, typer.Option("--curation", metavar="RUN", help="Link to the explorer of this run.")]
Evaluation = Annotated[
    Path | None, typer.Option("--evaluation", metavar="FOLDER", help="Link to the comparison in this folder.")
]
Running = Annotated[int, typer.Option("--running", min=1, help="Answers computed together, of each model.")]
Queue = Annotated[int, typer.Option("--queue", min=0, help="Requests that may wait, for each model.")]
Timeout = Annotated[float, typer.Option("--timeout-seconds", min=1, help="For one answer.")]
Drain = Annotated[
    float, typer.Option("--drain-seconds", min=0, help="For the answers under way, when it is told to end.")
]


@guarded
def serve(
    models: Models = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: Keys = None,
    allow_host: Hosts = None,
    allow_origin: Origins = None,
    allow_domain: Domains = None,
    media_root: Media = None,
    backend: Backend = "bunny",
    url: Url = "",
    upstream_model: Upstreams = None,
    curation: Curation = None,
    evaluation: Evaluation = None,
    running: Running = 8,
    queue: Queue = 64,
    timeout_seconds: Timeout = 300.0,
    drain_seconds: Drain = 30.0,
) -> None:
    """Answer over HTTP: OpenAI's API, and a page to chat.

    On this machine only, unless --host and a key say otherwise. Pictures come with the request;
    nothing is fetched and no file is read unless allowed.

    \b
    bunny serve runs/demo/model
    bunny serve small=runs/a/model large=runs/b/model --port 8080
    BUNNY_API_KEY=$(openssl rand -hex 24) bunny serve runs/demo/model --host 0.0.0.0
    bunny serve --backend openai --url http://127.0.0.1:8001/v1
    """
    from bunny.core.errors import UserError
    from bunny.core.log import set_up
    from bunny.pipeline.serving import Serving
    from bunny.pipeline.serving import serve as run

    if backend not in ("bunny", "openai") or (backend == "openai") != bool(url):
        raise UserError(
            f"--backend {backend}{'' if url else ' without --url'}", fix="--backend openai --url URL, or neither"
        )
    set_up(os.environ.get("BUNNY_LOG", "INFO"))
    run(
        Serving(
            models=tuple(models or ()),
            host=host,
            port=port,
            keys_file=api_key,
            allow_hosts=tuple(allow_host or ()),
            allow_origins=tuple(allow_origin or ()),
            allow_domains=tuple(allow_domain or ()),
            media_root=media_root,
            url=url,
            upstream_models=tuple(upstream_model or ()),
            curation=curation,
            evaluation=evaluation,
            running=running,
            queue=queue,
            timeout_seconds=timeout_seconds,
            drain_seconds=drain_seconds,
        )
    )
