"""The address policy, and its client against real servers on this machine; names are resolved by a stand-in."""

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tasks.addresses import AddressPolicy, AddressRefused, guarded_client

LOOPBACK = AddressPolicy.parse("*", "127.0.0.0/8")
ANYWHERE_PUBLIC = AddressPolicy()


# --- the policy


@pytest.mark.parametrize("address", ["8.8.8.8", "193.0.6.139", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str) -> None:
    ANYWHERE_PUBLIC.check_address("images.example.org", address)


PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # where clouds hand out credentials
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fec0::1",
    "fd12:3456::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_other_addresses_are_refused_and_the_message_says_how_to_allow_them(address: str) -> None:
    with pytest.raises(AddressRefused, match=r"not a public address; add its network to SECOND_LOOK_IMAGE_PRIVATE_NET"):
        ANYWHERE_PUBLIC.check_address("images.example.org", address)


@given(st.ip_addresses(v=4))
def test_ipv4_inside_ipv6_is_judged_as_itself(address: Any) -> None:
    def allowed(text: str) -> bool:
        try:
            ANYWHERE_PUBLIC.check_address("host", text)
        except AddressRefused:
            return False
        return True

    high, low = divmod(int(address), 65536)
    assert allowed(str(address)) == allowed(f"::ffff:{address}") == allowed(f"64:ff9b::{high:x}:{low:x}")


def test_networks_that_the_admin_names_are_allowed() -> None:
    policy = AddressPolicy.parse("*", " 10.1.0.0/16, fd00::/8 ,127.0.0.1")
    for address in ("10.1.255.1", "fd12::1", "127.0.0.1", "::ffff:10.1.0.1"):
        policy.check_address("store", address)
    for address in ("10.2.0.1", "127.0.0.2", "fe80::1", "192.168.0.1"):
        with pytest.raises(AddressRefused):
            policy.check_address("store", address)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("images.example.org", True),
        ("IMAGES.example.org.", True),
        ("a.images.example.org", False),
        ("scans.s3.amazonaws.com", True),
        ("a.b.s3.amazonaws.com", True),
        ("s3.amazonaws.com", False),
        ("evils3.amazonaws.com", False),
        ("s3.amazonaws.com.evil.org", False),
        ("10.0.0.7", True),
        ("10.0.0.70", False),
        ("fd00::7", True),
        ("", False),
    ],
)
def test_hosts(host: str, allowed: bool) -> None:
    policy = AddressPolicy.parse("images.example.org, *.S3.amazonaws.com,10.0.0.7, fd00::7", "")
    if allowed:
        policy.check_host(host)
    else:
        with pytest.raises(AddressRefused, match="SECOND_LOOK_IMAGE_HOSTS"):
            policy.check_host(host)
    AddressPolicy.parse("*", "").check_host(host)


@pytest.mark.parametrize("hosts", ["https://a.org", "a.org/path", "a.org:443", "*a.org", "a.*.org", "a b.org", "**"])
def test_what_is_no_host_pattern_is_named(hosts: str) -> None:
    with pytest.raises(ValueError, match="is no host") as caught:
        AddressPolicy.parse(f"fine.org,{hosts}", "")
    assert repr(hosts) in str(caught.value)


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "10.0.0.0/99", "private", "10.*"])
def test_what_is_no_network_is_named(networks: str) -> None:
    with pytest.raises(ValueError, match="is no network such as"):
        AddressPolicy.parse("*", networks)


# --- the client


@contextmanager
def serving(
    address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[str]]]:
    """A server that answers everything with its own address; yields its port and the Host headers it saw."""
    hosts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(address.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((address, port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_port, hosts
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], list[str]]]:
    """Names of ours and what they resolve to at each look-up, for every caller of this process."""
    known: dict[str, Callable[[], list[str]]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host in known:
            return [answer for address in known[host]() for answer in real(address, port, *args, **options)]
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


def test_a_name_that_answers_differently_the_second_time_leads_nowhere(names: dict[str, Any]) -> None:
    policy = AddressPolicy.parse("*", "127.0.0.2/32")
    answers = iter(["127.0.0.2", "127.0.0.1", "127.0.0.2", "127.0.0.1"])
    names["rebind.example"] = lambda: [next(answers)]
    with ExitStack() as stack:
        port, good = stack.enter_context(serving("127.0.0.2"))
        _, secret = stack.enter_context(serving("127.0.0.1", port))
        client = stack.enter_context(guarded_client(policy))
        for _ in range(2):
            assert client.get(f"http://rebind.example:{port}/").text == "127.0.0.2"
            with pytest.raises(AddressRefused, match=r"rebind\.example resolves to 127\.0\.0\.1"):
                client.get(f"http://rebind.example:{port}/")
        assert (good, secret) == ([f"rebind.example:{port}"] * 2, [])


def test_one_forbidden_address_among_several_is_enough(names: dict[str, Any]) -> None:
    names["mixed.example"] = lambda: ["127.0.0.2", "10.0.0.1"]
    with serving("127.0.0.2") as (port, seen), guarded_client(LOOPBACK) as client:
        with pytest.raises(AddressRefused, match=r"10\.0\.0\.1"):
            client.get(f"http://mixed.example:{port}/")
        assert seen == []


def test_the_next_address_is_tried_where_one_is_dead(names: dict[str, Any]) -> None:
    names["two.example"] = lambda: ["127.0.0.3", "127.0.0.2"]
    with serving("127.0.0.2") as (port, _), guarded_client(LOOPBACK) as client:
        assert client.get(f"http://two.example:{port}/").text == "127.0.0.2"
        names["two.example"] = lambda: ["127.0.0.3"]
        with pytest.raises(httpx.ConnectError):
            client.get(f"http://two.example:{port}/")


def test_a_name_that_does_not_resolve_is_a_failed_connection(names: dict[str, Any]) -> None:
    def nothing() -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    names["gone.example"] = nothing
    with (
        guarded_client(LOOPBACK) as client,
        pytest.raises(httpx.ConnectError, match=r"gone\.example cannot be resolved"),
    ):
        client.get("http://gone.example/")


@pytest.mark.parametrize(
    "authority",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "127.1",
        "0x7f.1",
        "0",
        "images.example.org@127.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ],
)
def test_no_way_of_writing_it_reaches_this_machine(authority: str) -> None:
    with serving() as (port, seen), guarded_client(ANYWHERE_PUBLIC) as client:
        with pytest.raises(AddressRefused, match="not a public address"):
            client.get(f"http://{authority}:{port}/")
        assert seen == []


def test_a_host_that_is_not_on_the_list_is_not_even_resolved(names: dict[str, Any]) -> None:
    names["other.example"] = lambda: pytest.fail("it was looked up")
    client = guarded_client(AddressPolicy.parse("images.example", "127.0.0.1/32"))
    with client, pytest.raises(AddressRefused, match=r"other\.example is none of the hosts"):
        client.get("http://other.example/")


def test_proxies_of_the_environment_are_not_used(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("127.0.0.1") as (proxy, asked), serving("127.0.0.2") as (port, _):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        names["images.example"] = lambda: ["127.0.0.2"]
        with guarded_client(LOOPBACK) as client:
            assert client.get(f"http://images.example:{port}/").text == "127.0.0.2"
        assert asked == []


def certificate(folder: Path, name: str) -> Path:
    """A certificate for `name`, signed by itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(signed.public_bytes(pem) + secret)
    return path


def test_tls_keeps_the_name_of_the_host(names: dict[str, Any], tmp_path: Path) -> None:
    pem = certificate(tmp_path, "images.example")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    asked_for: list[str | None] = []
    tls.sni_callback = lambda _, name, __: asked_for.append(name)
    names["images.example"] = names["other.example"] = lambda: ["127.0.0.1"]
    with serving(tls=tls) as (port, hosts), guarded_client(LOOPBACK, str(pem)) as client:
        assert client.get(f"https://images.example:{port}/").status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate"):
            client.get(f"https://other.example:{port}/")
    assert asked_for == ["images.example", "other.example"]
    assert hosts == [f"images.example:{port}"]
