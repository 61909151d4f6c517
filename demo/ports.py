"""Free TCP ports of the loopback."""

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import BinaryIO


def claim(port: int) -> BinaryIO | None:
    """Take a free port: until the file returned is closed, no other claim to it succeeds. None: it is taken.

    A service listens only once it is up, 15 s later for Label Studio: of two demos started at once, both would find
    the port free, and the second would talk to the first one's Label Studio. Claims bind the demos of one user.
    """
    folder = Path(tempfile.gettempdir(), f"second-look-ports-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = (folder / str(port)).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if port_is_free(port):
            return lock
    except BlockingIOError:
        pass
    lock.close()
    return None


def port_is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback, under IPv4 or, where there is one, IPv6.

    Both, since a browser sent to "localhost" may try either.
    """
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former run linger
                probe.bind((address, port))
        except OSError:
            if family == socket.AF_INET or _has_ipv6_loopback():
                return False
    return True


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def any_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
