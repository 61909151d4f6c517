"""Which hosts beside Label Studio may be asked for an image, and a client that cannot be led anywhere else.

The check sits where the connection is made: a name is resolved once, its addresses are checked, and it is one of those
that is connected to. So neither a redirect nor a name that answers differently the second time (DNS rebinding) gets by,
and nothing has to be parsed twice.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import httpcore
import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
HOST_PATTERN = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*")
CONNECTIONS = 32


class AddressRefused(ValueError):
    """The admin's settings do not allow this host or address; the message says which one and how to allow it."""


@dataclass(frozen=True)
class AddressPolicy:
    """The hosts that may be asked for images, and the networks beyond the public internet that they may lie in.

    hosts: names in lower case, "*.example.org" for every name below example.org, "*" for all; "10.0.0.7" stands for
    itself.
    """

    hosts: tuple[str, ...] = ("*",)
    private_networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, hosts: str, private_networks: str) -> AddressPolicy:
        """Two comma-separated lists as an admin writes them. Raises ValueError, naming the entry that is wrong."""
        patterns = tuple(part.lower() for part in _parts(hosts))
        for pattern in patterns:
            if not HOST_PATTERN.fullmatch(pattern):
                raise ValueError(
                    f"{pattern!r} is no host: write images.example.org, *.example.org (every name below it) or *,"
                    " without scheme, port or path"
                )
        return cls(patterns, tuple(_network(part) for part in _parts(private_networks)))

    def check_host(self, host: str) -> None:
        """Raise AddressRefused where no pattern covers the host name (ASCII, as it goes over the wire)."""
        name = host.lower().rstrip(".")
        if not any(
            pattern in ("*", name) or (pattern[:2] == "*." and name.endswith(pattern[1:])) for pattern in self.hosts
        ):
            raise AddressRefused(
                f"{host} is none of the hosts that images may come from; add it to SECOND_LOOK_IMAGE_HOSTS to allow it"
            )

    def check_address(self, host: str, address: str) -> None:
        """Raise AddressRefused for an address that is neither public nor in a network that the admin named."""
        found = _plain(ipaddress.ip_address(address))
        if not _public(found) and not any(found in network for network in self.private_networks):
            where = "" if host == str(found) else f"{host} resolves to "
            raise AddressRefused(
                f"{where}{found}, which is not a public address; add its network to"
                " SECOND_LOOK_IMAGE_PRIVATE_NETWORKS to allow it"
            )


def _parts(text: str) -> Iterable[str]:
    return filter(None, map(str.strip, text.split(",")))


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network such as 10.1.0.0/16 or fd00::/8: {error}") from error


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one: mapped (::ffff:0:0/96), or behind the well-known NAT64 prefix."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _public(address: Address) -> bool:
    """Whether the address belongs to the public internet; of IPv6, the old tunnels into IPv4 do not."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in GLOBAL_UNICAST or address.sixtofour is not None or address.teredo is not None
    ):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class _Guarded(httpcore.NetworkBackend):
    """Connects to addresses that the policy allows, and to no others."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        self._policy.check_host(host)
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        for address in addresses:  # one bad address among good ones is reason enough: nobody needs such a name
            self._policy.check_address(host, address)
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in addresses:
            try:
                return self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")


def guarded_client(policy: AddressPolicy, ca_file: str = "") -> httpx.Client:
    """A client without credentials that asks only what `policy` allows; requests raise AddressRefused for the rest.

    ca_file: certificates (PEM) that those of hosts may be signed by, beside the public ones.

    Host header, TLS server name and certificate check keep the host's name. Proxies of the environment are not used:
    a proxy would resolve names out of our sight.
    """
    tls = httpx.create_ssl_context()
    if ca_file:
        tls.load_verify_locations(ca_file)
    transport = httpx.HTTPTransport(verify=tls)
    # httpx passes no network backend on to httpcore (its pull request 3749 is open), so its pool is replaced.
    transport._pool = httpcore.ConnectionPool(
        ssl_context=tls, max_connections=CONNECTIONS, keepalive_expiry=5.0, network_backend=_Guarded(policy)
    )
    return httpx.Client(transport=transport, follow_redirects=False, trust_env=False)
