"""What strangers may send: bodies, pictures, addresses, names and broken HTTP, each with the answers it may get.

Used by the tests, and by bench/hostile.py, which counts cases and memory.
"""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from bunny.serve.schema import LABELS, UNSUPPORTED, ChatCompletionRequest

CHAT = "/v1/chat/completions"
PRIVATE = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0",
    "localhost",
    "LOCALHOST.",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1%25lo]",
    "[fc00::1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "metadata.google.internal",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "pictures.test@127.0.0.1",
    "127.0.0.1#pictures.test",
    "127.0.0.1\\@pictures.test",
    "pictures.test.127.0.0.1.nip.io",
    "xn--pictures-.test",
)
"""Hosts of this machine and its neighbours, in the ways that filters have been passed with."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request. statuses: what may be answered. raw: sent as it is, in place of a well-formed request."""

    group: str
    name: str
    body: bytes = b""
    statuses: tuple[int, ...] = (400,)
    headers: Mapping[str, str] | None = None
    method: str = "POST"
    path: str = CHAT
    raw: bytes = b""


def question(content: Any = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "stub", "messages": [{"role": "user", "content": content}], **more}


def shown(url: Any) -> dict[str, Any]:
    return question([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what?"}])


def as_bytes(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def bodies() -> Iterator[Case]:
    """Texts that are no JSON, or JSON that costs or confuses."""
    text = as_bytes(question())
    wrong = {
        "empty": b"",
        "words": b"hello",
        "half": text[: len(text) // 2],
        "two values": text + text,
        "NaN": b'{"model": "stub", "temperature": NaN}',
        "infinity": b'{"model": "stub", "temperature": -Infinity}',
        "beyond a double": b'{"model": "stub", "temperature": 1e999}',
        "key twice": b'{"model": "stub", "model": "other"}',
        "key twice, escaped": b'{"model": "stub", "mod\\u0065l": "other"}',
        "half a surrogate pair": b'{"model": "\\ud800", "messages": []}',
        "surrogate as a key": b'{"\\udc00": 1}',
        "5000 digits": b'{"model": "stub", "seed": ' + b"9" * 5000 + b"}",
        "bytes of no UTF-8": b'{"model": "\xff\xfe"}',
        "UTF-16": text.decode().encode("utf-16"),
        "byte order mark": b"\xef\xbb\xbf" + text,
        "NUL": b"\0" * 100,
        "a comment": b"/* */" + text,
        "a trailing comma": b'{"model": "stub",}',
        "single quotes": b"{'model': 'stub'}",
        "a list": b"[]",
        "a text": b'"hi"',
        "null": b"null",
        "100,000 open lists": b"[" * 100_000,
        "90,000 open objects": b'{"a":' * 90_000,
        "nested 1000 deep": b'{"model":' + b"[" * 1000 + b"]" * 1000 + b"}",
        "nested 33 deep": b'{"metadata":' + b"[" * 33 + b"]" * 33 + b"}",
        "60,000 empty lists": b'{"metadata": [' + b"[]," * 60_000 + b"[]]}",
        "90,000 keys": json.dumps({str(number): 0 for number in range(60_000)}).encode(),
    }
    for name, body in wrong.items():
        yield Case("JSON", name, body, (400, 413))


def types() -> Iterator[Case]:
    """Every parameter with values of every kind."""
    fields = [*ChatCompletionRequest.model_fields, *UNSUPPORTED, *LABELS, "unknown"]
    values: tuple[Any, ...] = (True, "x", "", [], {}, [1], {"a": 1}, 0, -1, 0.5, 2**63, -(2**70), 1e308, None)
    for field in fields:
        for value in values:
            body = as_bytes({**question(), field: value})
            yield Case("types", f"{field}: {value!r}"[:60], body, (200, 400, 404))
    contents: tuple[Any, ...] = (None, 1, True, {}, [], [1], [None], [{}], [{"type": "text"}], [{"type": []}], [[]])
    parts = [{"type": kind} for kind in ("input_audio", "file", "video_url", "refusal", "image", "tool_use")]
    for content in (*contents, *([part] for part in parts)):
        yield Case("types", f"content {content!r}"[:60], as_bytes(question(content)))
    for role in ("tool", "function", "", "root", None, 1, ["user"]):
        yield Case("types", f"role {role!r}", as_bytes({"model": "stub", "messages": [{"role": role, "content": "x"}]}))


def sizes() -> Iterator[Case]:
    """Too much of everything."""
    many = {
        "n 9": question(n=9),
        "n 10**9": question(n=10**9),
        "max_tokens 10**12": question(max_tokens=10**12),
        "top_logprobs 21": question(logprobs=True, top_logprobs=21),
        "five stops": question(stop=["a", "b", "c", "d", "e"]),
        "a long stop": question(stop="x" * 300),
        "100,001 characters": question("x" * 100_001),
        "600 messages": {"model": "stub", "messages": [{"role": "user", "content": "x"}] * 600},
        "300 parts": question([{"type": "text", "text": "x"}] * 300),
        "17 pictures": question([{"type": "image_url", "image_url": {"url": data_url(png(1, 1))}}] * 17),
        "marks of pictures": question("<image>" * 1000),
        "a mark over two parts": question([{"type": "text", "text": "<ima"}, {"type": "text", "text": "ge>"}]),
        "a picture in a system turn": {
            "model": "stub",
            "messages": [
                {"role": "system", "content": [{"type": "image_url", "image_url": {"url": data_url(png(1, 1))}}]},
                {"role": "user", "content": "x"},
            ],
        },
        "a long model name": {**question(), "model": "x" * 10_000},
    }
    for name, tree in many.items():
        yield Case("sizes", name, as_bytes(tree))
    yield Case("sizes", "30 MB", b" " * 30_000_000, (413,))
    yield Case("sizes", "content-length 10**30", b"", (400, 413), {"content-length": "1" + "0" * 30})


def kinds() -> Iterator[Case]:
    """Other content types, and multipart that is none."""
    boundary = b"--x\r\nContent-Disposition: form-data; name=a"
    sent = {
        "multipart without a boundary": ("multipart/form-data", boundary),
        "multipart that never ends": ("multipart/form-data; boundary=x", boundary * 1000),
        "multipart with a null boundary": ("multipart/form-data; boundary=\x01", boundary),
        "a form": ("application/x-www-form-urlencoded", b"model=stub"),
        "plain text": ("text/plain", as_bytes(question())),
        "none": ("", as_bytes(question())),
        "XML": ("application/xml", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
        "pickle": ("application/octet-stream", b"cos\nsystem\n(S'true'\ntR."),
    }
    for name, (kind, body) in sent.items():
        yield Case("content types", name, body, (415,), {"content-type": kind})
    bomb = {"content-type": "application/json", "content-encoding": "gzip"}
    yield Case("content types", "a gzip bomb", zlib.compress(b" " * 10**7), (415,), bomb)


@cache
def png(width: int, height: int, real: bool = True) -> bytes:
    """A PNG; not `real`: one colour, as small as such a file can be."""
    if real:
        return encoded(Image.new("RGB", (width, height), (200, 30, 30)), "PNG")
    packer = zlib.compressobj(9)
    line = b"\0" * (1 + (width + 7) // 8)
    rows = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encoded(image: Image.Image, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def pictures() -> Iterator[Case]:
    """Files that are huge, broken, or of a kind that is not read."""
    small = Image.new("RGB", (64, 48), (10, 200, 90))
    text = zlib.compress(b"a" * 50_000_000)
    bombs = {
        "PNG of 817 MB": png(28_000, 29_178, real=False),
        "PNG that says 4 billion pixels": b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 65_535, 65_535, 8, 2, 0, 0, 0)),
        "PNG with a text of 50 MB": png(8, 8)[:33] + chunk(b"zTXt", b"a\0\0" + text) + png(8, 8)[33:],
        "PNG with a profile of 50 MB": png(8, 8)[:33] + chunk(b"iCCP", b"a\0\0" + text) + png(8, 8)[33:],
        "GIF of 65,535 x 65,535": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0),
        "BMP of 2 billion rows": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 9, 2**31 - 1, 1, 24, *[0] * 6),
        "WebP of 16,383 x 16,383": webp_head(16_383, 16_383),
        "JPEG of 65,500 x 65,500": jpeg_head(65_500, 65_500),
    }
    for name, data in bombs.items():
        yield Case("bombs", name, as_bytes(shown(data_url(data))), (200, 400))
    for kind in ("TIFF", "ICO", "PPM", "PDF", "EPS", "TGA", "PCX", "ICNS", "JPEG2000"):
        yield Case("pictures", kind, as_bytes(shown(data_url(encoded(small, kind)))))
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    for name, data in {"SVG": svg, "HTML": b"<html>", "nothing": b"", "zip": b"PK\3\4", "NUL": b"\0" * 64}.items():
        yield Case("pictures", name, as_bytes(shown(data_url(data))))
    rng = random.Random(0)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        data = encoded(small, kind)
        for part in (0.1, 0.5, 0.9, 0.99):
            cut = data[: int(len(data) * part)]
            yield Case("pictures", f"{kind} cut at {part:.0%}", as_bytes(shown(data_url(cut))), (200, 400))
        for number in range(20):
            spoilt = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                spoilt[rng.randrange(8, len(spoilt))] = rng.randrange(256)
            yield Case("pictures", f"{kind} spoilt {number}", as_bytes(shown(data_url(bytes(spoilt)))), (200, 400))


def webp_head(width: int, height: int) -> bytes:
    """A WebP whose canvas is said to be large; its one frame is missing."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sizes
    animation = b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    frame = encoded(Image.new("RGB", (16, 16)), "WEBP")[12:]
    inner = b"\0" * 6 + (15).to_bytes(3, "little") * 2 + b"\0" * 4 + frame
    frames = b"ANMF" + struct.pack("<I", len(inner)) + inner
    content = b"WEBP" + extended + animation + frames
    return b"RIFF" + struct.pack("<I", len(content)) + content


def jpeg_head(width: int, height: int) -> bytes:
    """A JPEG of one colour whose header says that it is large."""
    data = encoded(Image.new("RGB", (16, 16)), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def addresses() -> Iterator[Case]:
    """Pictures from where none may come. The host pictures.test is allowed and resolves as the server's stub says."""
    for host in PRIVATE:
        yield Case("addresses", f"http://{host}/", as_bytes(shown(f"http://{host}/a.png")))
    odd = (
        "ftp://pictures.test/a",
        "gopher://pictures.test:70/_a",
        "dict://pictures.test/a",
        "jar:http://pictures.test/a",
        "javascript:alert(1)",
        "blob:http://pictures.test/a",
        "//pictures.test/a.png",
        "http:pictures.test",
        "http:///a.png",
        "http://",
        "http://[",
        "http://[::1",
        "http://pictures.test:22/a.png",
        "http://pictures.test:99999/a.png",
        "http://pictures.test:-1/a.png",
        "http://user:word@pictures.test/a.png",
        "http://pictures.test\r\nHost: x/a.png",
        "http://pictures.test/\ud83d\ude00",
        "http://" + "a" * 300 + ".test/",
        "http://pictures.test/" + "a" * 70_000,
        "https://pictures.test.",
        "data:",
        "data:,",
        "data:image/png,abc",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,%%%",
        "data:image/png;base64,AAAA=AAA",
        "data:image/png;base64,ünicode",
        "data:text/html;base64,PGI+",
    )
    for url in odd:
        yield Case("addresses", url[:50], as_bytes(shown(url)))
    for url in ("", None, 1, [], {}, True):
        yield Case("addresses", repr(url), as_bytes(shown(url)))


def names() -> Iterator[Case]:
    """Names of files outside the media folder; see `media_folder`."""
    outside = (
        "../secret.png",
        "a/../../secret.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "file:///etc/passwd%00.png",
        "file://localhost/etc/passwd",
        "file://elsewhere/etc/passwd",
        "FILE:///etc/passwd",
        "file:../secret.png",
        "file://%2e%2e/secret.png",
        "file:///../../../etc/passwd",
        "%2e%2e/secret.png",
        "..\\secret.png",
        "....//secret.png",
        "link.png",
        "linked/secret.png",
        "loop.png",
        "pipe.png",
        "folder",
        "",
        ".",
        "\0",
        "good.png\0",
        "good.png/..",
        "nothing.png",
        "a" * 300,
        "a/" * 3000,
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
        "~/.ssh/id_rsa",
        "C:\\windows\\win.ini",
        "\\\\host\\share\\a.png",
    )
    for name in outside:
        yield Case("file names", repr(name)[:50], as_bytes(shown(name)))


def media_folder(folder: Path) -> Path:
    """A folder with one good picture and ways out of it."""
    import os

    root = folder / "media"
    (root / "folder").mkdir(parents=True)
    (folder / "secret.png").write_bytes(png(4, 4))
    (root / "good.png").write_bytes(png(4, 4))
    (root / "link.png").symlink_to(folder / "secret.png")
    (root / "linked").symlink_to(folder)
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    return root


def http() -> Iterator[Case]:
    """Broken HTTP, other methods, other paths. Status 0: the connection is closed without an answer."""
    text = as_bytes(question())
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n".encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    raw = {
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        "a line of 100,000 letters": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "5000 headers": head + b"X: y\r\n" * 5000 + b"\r\n",
        "a header of 100,000 letters": head + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        "two lengths": head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "a negative length": head + b"Content-Length: -1\r\n\r\n",
        "a length and chunks": head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
        "a chunk of letters": chunked + b"zz\r\nhello\r\n",
        "a chunk of 16 EiB": chunked + b"ffffffffffffffff\r\nhello",
        "an unknown encoding": head + b"Transfer-Encoding: gzip\r\n\r\n",
        "no host": f"POST {CHAT} HTTP/1.1\r\n\r\n".encode(),
        "two hosts": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.test\r\n\r\n",
        "a foreign host": b"GET /v1/models HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "a split header": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\n\tb\r\n\r\n",
        "a websocket": b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a body in chunks of one byte": chunked
        + b"".join(b"1\r\n" + bytes([c]) + b"\r\n" for c in text)
        + b"0\r\n\r\n",
    }
    for name, data in raw.items():
        yield Case("HTTP", name, raw=data, statuses=(0, 200, 400, 403, 404, 405, 408, 431, 501))
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "HEAD", "BREW"):
        yield Case("HTTP", method, method=method, statuses=(400, 405))
    paths = ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd", "/page_chat/x")
    odd = (
        "/v1/models/" + "%00" * 10,
        "/v1/models/../../x",
        "/%ff%fe",
        "/v1//models",
        "/index.html%00.js",
        "/" + "a" * 9999,
    )
    for path in (*paths, *odd, "/app.py", "/__init__.py", "/page/../app.py", "/v1/completions", "/v1/embeddings"):
        yield Case("HTTP", path[:40], method="GET", path=path, statuses=(400, 404))


def cases() -> list[Case]:
    """All of them."""
    found = (bodies, types, sizes, kinds, pictures, addresses, names, http)
    return [case for group in found for case in group()]
