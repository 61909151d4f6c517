"""Basic auth of the HTTP contract, and the rule that nothing listens beyond this machine without a password."""

import hashlib
import hmac
import ipaddress

from werkzeug.datastructures import Authorization

from backend.settings import Settings


class ListenRefused(ValueError):
    """The backend would be open to other machines; the message names the setting to change."""


def check_listen(settings: Settings) -> None:
    """Raise ListenRefused where `settings` would open the backend to other machines without a password."""
    if settings.listens_beyond_loopback() and not settings.password.get_secret_value():
        raise ListenRefused(
            f"refusing to listen on {settings.host} without a password: set SECOND_LOOK_PASSWORD, "
            "or SECOND_LOOK_HOST=127.0.0.1 to serve this machine alone"
        )


def allowed(authorization: Authorization | None, username: str, password: str) -> bool:
    """Whether a request's basic auth names this user and password; takes the same time wherever they differ."""
    given = authorization if authorization is not None and authorization.type == "basic" else None
    user = _same(given.username if given else None, username)
    word = _same(given.password if given else None, password)
    return user and word


def from_loopback(address: str | None) -> bool:
    """Whether a request's remote address is this machine's own."""
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


def _same(given: str | None, expected: str) -> bool:
    # Digests have one length, so that the comparison does not tell the length of the secret either.
    def digest(text: str) -> bytes:
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    return hmac.compare_digest(digest(given or ""), digest(expected)) and given is not None
