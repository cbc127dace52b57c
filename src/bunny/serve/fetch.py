"""A picture from the network for somebody else, so that nothing but a picture of an allowed host can come of it.

In: an address. Out: bytes. The host must be allowed by name, its name is resolved once and all its addresses must be
public, the connection goes to the address that was checked, and every redirect is checked from the start again.
Nothing of ours goes along: no cookies, no proxy settings, no keys. Bodies are not decompressed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from functools import cache

import anyio
import httpx

from bunny.serve.addresses import Resolve, is_public, resolve
from bunny.serve.failures import ApiError
from bunny.serve.limits import Limits

REDIRECTS = 3
PORTS = {"http": 80, "https": 443}
HEADERS = {"user-agent": "bunny", "accept": "image/*", "accept-encoding": "identity"}


class Fetcher:
    """domains: host names that may be asked; `.example.org` stands for all below it, `example.org:8080` allows that
    port beside the usual ones. resolver, acceptable, transport: the network; others in tests."""

    def __init__(
        self,
        domains: Sequence[str],
        limits: Limits,
        resolver: Resolve = resolve,
        acceptable: Callable[[str], bool] = is_public,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
    ) -> None:
        self.domains = tuple(domain.lower().rstrip(".") for domain in domains)
        self.limits, self.resolver, self.acceptable = limits, resolver, acceptable
        self._transport = transport or _transport
        self._places = anyio.CapacityLimiter(limits.fetches)

    async def fetch(self, address: str) -> bytes:
        """What is at an http(s) address. Raises ApiError 400 for an address that may not be asked or gives no file."""
        try:
            with anyio.fail_after(self.limits.fetch_seconds):
                async with self._places:
                    return await self._followed(address)
        except TimeoutError:
            raise _refused("it takes too long") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
            raise _refused("it cannot be had") from None  # why would tell of networks that the asker cannot see

    async def _followed(self, address: str) -> bytes:
        url = httpx.URL(address)
        for _ in range(REDIRECTS + 1):
            found = await self._asked(url)
            if isinstance(found, bytes):
                return found
            url = url.join(found)
        raise _refused(f"more than {REDIRECTS} redirects")

    async def _asked(self, url: httpx.URL) -> bytes | str:
        """The body, or where it is instead."""
        for number, pinned in enumerate(addresses := await self._addresses(url)):
            try:
                return await self._answer(url, pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses) - 1:
                    raise
        raise AssertionError("no address")

    async def _addresses(self, url: httpx.URL) -> list[str]:
        """Numbers of a host that may be asked, at most two."""
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        if url.scheme not in PORTS:
            raise _refused("only http and https are")
        if url.userinfo:
            raise _refused("it holds a user name")
        port = url.port or PORTS[url.scheme]
        if not self._allowed(host, port):
            raise _refused("its host is not among the allowed ones")
        found = await self.resolver(host, port)
        if not found or not all(self.acceptable(number) for number in found):
            raise _refused("its host is not on the public network")
        return found[:2]

    def _allowed(self, host: str, port: int) -> bool:
        for domain in self.domains:
            name, _, extra = domain.partition(":")
            fits = host.endswith(name) and len(host) > len(name) if name.startswith(".") else host == name
            if fits and (port in PORTS.values() or str(port) == extra):
                return True
        return False

    async def _answer(self, url: httpx.URL, pinned: str) -> bytes | str:
        target = url.copy_with(host=f"[{pinned}]" if ":" in pinned else pinned, fragment=None)
        headers = {**HEADERS, "host": url.netloc.decode("ascii")}
        name = {"sni_hostname": url.raw_host.decode("ascii")}  # the certificate must be the name's, not the number's
        # a client of its own: a kept connection could be another name's
        async with (
            httpx.AsyncClient(
                transport=self._transport(), trust_env=False, timeout=self.limits.fetch_seconds
            ) as client,
            client.stream("GET", target, headers=headers, extensions=name) as answer,
        ):
            if answer.is_redirect:
                return answer.headers["location"]
            if answer.status_code != 200:
                raise _refused(f"its host answers {answer.status_code}")
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise _refused("it comes compressed")
            return await self._read(answer)

    async def _read(self, answer: httpx.Response) -> bytes:
        most = self.limits.picture_bytes
        promised = answer.headers.get("content-length", "")
        if promised.isdecimal() and (len(promised) > 15 or int(promised) > most):
            raise _refused(f"it is larger than {most >> 20} MiB")
        data = bytearray()
        async for piece in answer.aiter_raw():
            data += piece
            if len(data) > most:
                raise _refused(f"it is larger than {most >> 20} MiB")
        return bytes(data)


@cache
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _transport() -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(verify=_certificates(), trust_env=False, limits=httpx.Limits(max_connections=1))


def _refused(why: str) -> ApiError:
    return ApiError(400, f"the picture's address cannot be fetched: {why}", code="invalid_image_url")
