"""Which network addresses a server may fetch from for others: public ones.

A private one would let a stranger read through us what only this machine can reach.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable

import anyio

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host name, port) -> its addresses, as numbers. Raises OSError."""

REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # a cloud's own service behind a public number
        "192.0.0.0/24",  # for protocols; a cloud's own service too
        "192.88.99.0/24",  # 6to4 relays
        "::ffff:0:0/96",  # IPv4 in IPv6: what is behind it depends on the machine
        "::ffff:0:0:0/96",  # the same, translated
        "64:ff9b::/96",  # NAT64: any IPv4 address, also a private one
        "64:ff9b:1::/48",
        "2001::/23",  # Teredo and other tunnels
        "2002::/16",  # 6to4: any IPv4 address
    )
)


def is_public(address: str) -> bool:
    """Whether a number is one that anybody may reach: not private, of this machine, of its network, of many machines,
    reserved, or one that stands for another.

    >>> is_public("93.184.216.34"), is_public("10.0.0.1"), is_public("::ffff:127.0.0.1")
    (True, False, False)
    """
    try:
        number = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if any(number in network for network in REFUSED if network.version == number.version):
        return False
    wrong = number.is_private or number.is_multicast or number.is_reserved or number.is_unspecified
    local = number.is_loopback or number.is_link_local or getattr(number, "is_site_local", False)
    return number.is_global and not wrong and not local


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the machine's resolver has them."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
