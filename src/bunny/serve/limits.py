"""How much one request, and all together, may take: bounds that keep memory and time in hand."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server; the defaults suit one machine and people's pictures.

    body_bytes: of a request. body_seconds: until all of it has come; body_pause_seconds: until some more has.
    head_seconds: until a connection has sent a request's headers; idle_seconds: between two requests (whole seconds).
    connections: open at once.
    json_depth, json_values: nesting, and lists, objects and commas of a body.
    messages, prompt_characters, choices (`n`), tokens (`max_tokens`), default_tokens: of one request.
    pictures: of one request. picture_bytes: encoded. picture_pixels: of one (a larger baseline JPEG is read at a
    fraction of its size); request_pixels: of all of them.
    held_bytes: bodies and decoded pictures of all requests together. requests: under way at once, waiting ones too.
    decoders: pictures decoded at once. fetches: pictures fetched at once; fetch_seconds: for one, with redirects.
    timeout_seconds: for an answer.
    """

    body_bytes: int = 20 * MIB
    body_seconds: float = 60.0
    body_pause_seconds: float = 10.0
    head_seconds: float = 10.0
    idle_seconds: int = 5
    connections: int = 512
    json_depth: int = 32
    json_values: int = 100_000
    messages: int = 512
    prompt_characters: int = 100_000
    choices: int = 8
    tokens: int = 8192
    default_tokens: int = 512
    pictures: int = 16
    picture_bytes: int = 15 * MIB
    picture_pixels: int = 24_000_000
    request_pixels: int = 64_000_000
    held_bytes: int = 512 * MIB
    requests: int = 128
    decoders: int = 2
    fetches: int = 8
    fetch_seconds: float = 10.0
    timeout_seconds: float = 300.0
