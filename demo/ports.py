"""Free TCP ports of the loopback."""

import socket


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
