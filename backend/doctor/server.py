"""Checks of Label Studio itself: its address, our token, the addresses it blocks, its locks, database and flags."""

import json
from collections.abc import Iterator

from backend.doctor.findings import Fault, NotObserved, Unknown, error, known, warning
from backend.doctor.observed import BULK_FLAG, Facts, ProjectFacts

LONG_LOCK = 4 * 3600  # seconds; a session of labelling is shorter
SLOW_IMPORT = 5_000  # tasks; importing one prediction then takes 5 s
SECONDS_A_TASK = 4.6 / 5_000  # of every import of predictions, measured on SQLite


def address(seen: Facts) -> Iterator[Fault]:
    """Label Studio answers at SECOND_LOOK_LABEL_STUDIO_URL, without a redirect."""
    url = seen.settings.label_studio_url
    setting = "SECOND_LOOK_LABEL_STUDIO_URL"
    answer = seen.address
    if isinstance(answer, Unknown):
        yield error(
            f"Label Studio does not answer at {url}: {answer.reason}",
            f"start it, or set {setting} to the address at which this machine reaches it",
        )
    elif answer.location is not None:
        yield error(
            f"{url} redirects to {answer.location} ({answer.status})",
            f"set {setting} to the address it redirects to, without its last part /health",
        )
    elif answer.status != 200 or not _is_health(answer.text):
        yield error(
            f"{url}/health answers {answer.status} {answer.text[:60]!r}: that is not Label Studio",
            f"set {setting} to Label Studio's own address (with the sub-path, where it has one)",
        )


def _is_health(text: str) -> bool:
    try:
        answer = json.loads(text)
    except ValueError:
        return False
    # An ML backend answers in the same way, and says so.
    return isinstance(answer, dict) and answer.get("status") == "UP" and "model_class" not in answer


def token(seen: Facts) -> Iterator[Fault]:
    """Label Studio accepts SECOND_LOOK_LABEL_STUDIO_TOKEN."""
    create = (
        "create a personal access token in Label Studio (Account & Settings, Personal Access Token) and set"
        " SECOND_LOOK_LABEL_STUDIO_TOKEN to it"
    )
    if not seen.settings.label_studio_token.get_secret_value():
        yield error("no token is set", create)
        return
    if next(iter(address(seen)), None) is not None:
        raise NotObserved("Label Studio does not answer")
    refused = seen.whoami
    if not isinstance(refused, Unknown):
        return
    if refused.status not in (400, 401, 403):
        raise NotObserved(refused.reason)
    if "legacy token" in refused.reason:
        yield error(
            "the token is a legacy token, and this Label Studio does not take them (they are off by default)",
            f"{create}; or switch legacy tokens on in Organization, API Tokens Settings",
        )
        return
    yield error(
        f"Label Studio does not accept the token: {refused.reason}",
        f"{create}. Tokens also become void when Label Studio is restarted with another SECRET_KEY: give it one that"
        " stays (the environment variable SECRET_KEY)",
    )


def _refusal(seen: Facts, which: str, url: str, switch: str) -> Iterator[Fault]:
    said = None if seen.poll else known(seen.url_refusals[which])
    if said is None:
        return
    if "reserved network address" in said or "not allowed" in said:
        yield error(
            f"Label Studio blocks {url}, a local or private address: {said}",
            f"start Label Studio with {switch}=false (it takes both: ML_BLOCK_LOCAL_IP=false for the ML backend and"
            " SSRF_PROTECTION_ENABLED=false for the webhook), or with USE_DEFAULT_BANNED_SUBNETS=false and"
            " USER_ADDITIONAL_BANNED_SUBNETS=169.254.0.0/16; or connect without either: second-look setup --poll",
        )
    else:
        yield error(
            f"Label Studio does not take {url}: {said}",
            "set SECOND_LOOK_PUBLIC_URL to an address at which Label Studio's machine reaches this backend, with a"
            " host name that has a dot in it, or an IP address",
        )


def ml_address_blocked(seen: Facts) -> Iterator[Fault]:
    """Label Studio lets an ML backend have our address (its switch ML_BLOCK_LOCAL_IP)."""
    return _refusal(seen, "ml", seen.connection.url, "ML_BLOCK_LOCAL_IP")


def webhook_address_blocked(seen: Facts) -> Iterator[Fault]:
    """Label Studio lets a webhook have our address (its switch SSRF_PROTECTION_ENABLED)."""
    return _refusal(seen, "webhook", seen.connection.webhook_url, "SSRF_PROTECTION_ENABLED")


def task_lock(seen: Facts) -> Iterator[Fault]:
    """Label Studio's task lock is short, and SECOND_LOOK_TASK_LOCK_HOURS is not shorter.

    Only a superuser's token is shown TASK_LOCK_TTL; without one it is judged by SECOND_LOOK_TASK_LOCK_HOURS.
    """
    ours = seen.settings.task_lock_hours * 3600
    shorter = "start Label Studio with TASK_LOCK_TTL=1800 (seconds) and set SECOND_LOOK_TASK_LOCK_HOURS=0.5"
    effect = "a task that somebody opened and left is kept from the others so long, the first of the queue before all"
    visible = not isinstance(seen.server, Unknown) and "TASK_LOCK_TTL" in seen.server
    lock = float(known(seen.server)["TASK_LOCK_TTL"]) if visible else ours
    if visible and ours < lock:
        yield error(
            f"SECOND_LOOK_TASK_LOCK_HOURS is {ours / 3600:g}, but Label Studio locks tasks for {lock / 3600:g} hours"
            " (TASK_LOCK_TTL): predictions would be deleted that a submit still needs",
            f"set SECOND_LOOK_TASK_LOCK_HOURS={lock / 3600:g}",
        )
    if lock > LONG_LOCK and known(seen.members) > 1:
        source = "Label Studio locks" if visible else "by SECOND_LOOK_TASK_LOCK_HOURS, Label Studio locks"
        yield warning(f"{source} an opened task for {lock / 3600:g} hours: {effect}", shorter)


def bulk_import(seen: ProjectFacts) -> Iterator[Fault]:
    """Importing predictions costs by the batch, or the project is small."""
    tasks = int(known(seen.remote)["task_number"])
    if tasks < SLOW_IMPORT:
        return
    flags = seen.backend.flags
    if not isinstance(flags, Unknown) and flags.get(BULK_FLAG):
        return
    hidden = " (its flags cannot be seen with this token)" if isinstance(flags, Unknown) else ""
    yield warning(
        f"each refill of the queue costs Label Studio some {tasks * SECONDS_A_TASK:.0f} s, as it counts all"
        f" {tasks} tasks anew{hidden}",
        f"start Label Studio with the environment variable {BULK_FLAG}=true",
    )


def database(seen: ProjectFacts) -> Iterator[Fault]:
    """Several annotators do not share a Label Studio on SQLite.

    Only a superuser's token is shown which database it is; no other call tells.
    """
    people = known(seen.stored).annotators
    if people < 2:
        return
    server = seen.backend.server
    if isinstance(server, Unknown) or "DJANGO_DB" not in server:
        raise NotObserved(
            f"{people} annotators work here, and Label Studio shows only a superuser's token whether it runs on SQLite"
        )
    if server["DJANGO_DB"] == "sqlite":
        yield warning(
            f"{people} annotators share a Label Studio on SQLite: at the same instant two may be given the same task,"
            " and calls fail with 'database is locked'",
            "run Label Studio on PostgreSQL (DJANGO_DB=default and POSTGRE_NAME, POSTGRE_USER, POSTGRE_PASSWORD,"
            " POSTGRE_HOST, POSTGRE_PORT)",
        )
