"""What Label Studio shows of itself: whether it is there, its settings and flags, which addresses it lets us have.

Nothing here changes anything in it.
"""

import json
from collections.abc import Iterable
from typing import Any, Literal

from tasks.client import Client, LabelStudioError


def health(client: Client) -> tuple[int, str | None, str]:
    """What /health answers, asked without our token: status, where it redirects to, the text."""
    response = client.http.get("/health", auth=None)
    return response.status_code, response.headers.get("Location"), response.text[:500]


def server_settings(client: Client, names: Iterable[str]) -> dict[str, str]:
    """Settings of the server by name; none unless the token's user is its superuser.

    The page holds the server's secrets too: only what is named is kept of it.
    """
    shown = _page(client, "/version/").get("settings", {})
    return {name: shown[name] for name in names if name in shown}


def feature_flags(client: Client) -> dict[str, Any]:
    """Its feature flags. Raises LabelStudioError for a legacy token, to which it does not show them."""
    return _page(client, "/feature-flags/")


def url_refusal(client: Client, kind: Literal["ml", "webhook"], url: str) -> str | None:
    """Why it would not let an ML backend or a webhook have this address; None where it would.

    Asked by a request that it must refuse in any case, for it names no project and a choice that does not exist: it
    looks at the address first. Answers 403 for blocked addresses, 500 for names that it cannot resolve.
    """
    body: dict[str, Any] = {"project": 0, "url": url}
    if kind == "ml":
        response = client.http.post("/api/ml", json=body | {"auth_method": "NOT A METHOD"})
    else:
        response = client.http.post("/api/webhooks/", json=body | {"actions": ["NOT AN ACTION"]})
    try:
        answer = response.json()
    except ValueError as error:
        raise LabelStudioError(f"{response.request.url.path}: {response.status_code}", response.status_code) from error
    faults = answer.get("validation_errors") or {}
    if response.status_code == 400 and ("auth_method" in faults or "actions" in faults):
        return "; ".join(map(str, faults["url"])) if "url" in faults else None
    return str(answer.get("detail", response.text[:200]))


def _page(client: Client, path: str) -> dict[str, Any]:
    """An HTML page that holds nothing but JSON."""
    response = client.http.get(path)
    if not response.is_success:
        raise LabelStudioError(f"GET {path}: {response.status_code} {response.text[:200]}", response.status_code)
    try:
        answer: dict[str, Any] = json.loads(response.text.removeprefix("<pre>").removesuffix("</pre>"))
    except ValueError as error:
        raise LabelStudioError(f"GET {path}: the page is not as Label Studio 1.23 writes it") from error
    return answer
