"""The tests' network: it ends at this machine and its neighbours, and who asks for more is noted."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_asked: list[str] = []


def cut_off(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse look-ups of hosts and connections beyond the local network: an audit hook (`sys.addaudithook`)."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[0].type == socket.SOCK_STREAM:
        host = arguments[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host or "localhost"
    if name not in ("localhost", socket.gethostname()) and not _is_local(name):
        _asked.append(name)
        raise OSError(f"no network in tests ({name})")


@contextmanager
def asked() -> Iterator[list[str]]:
    """Yield a list that has, at the end of the block, the hosts that were asked for in it."""
    before, hosts = len(_asked), list[str]()
    try:
        yield hosts
    finally:
        hosts += _asked[before:]


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_private
    except ValueError:
        return False
