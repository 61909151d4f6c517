"""What a check finds, and carrying checks out so that none costs another anything."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union

import structlog

log = structlog.get_logger()

Severity = Literal["error", "warning"]
T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be observed, and why. status: the HTTP status of a refusal."""

    reason: str
    status: int | None = None


Maybe = Union[T, Unknown]  # noqa: UP007 (a generic alias)


class NotObserved(Exception):
    """A check needs a fact that could not be observed."""


def known(fact: Maybe[T]) -> T:
    """The fact; raises NotObserved where there is none."""
    if isinstance(fact, Unknown):
        raise NotObserved(fact.reason)
    return fact


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong (with the values seen), and how to mend it."""

    severity: Severity
    what: str
    mend: str


def error(what: str, mend: str) -> Fault:
    """A fault that breaks the loop."""
    return Fault("error", what, mend)


def warning(what: str, mend: str) -> Fault:
    """A fault that slows the loop, or makes it worth less."""
    return Fault("warning", what, mend)


@dataclass(frozen=True)
class Finding:
    """A fault with the name of its check, and its project (None: it concerns the whole backend).

    carried_out: False where the check itself could not be.
    """

    check: str
    project: int | None
    severity: Severity
    what: str
    mend: str
    carried_out: bool = True


Check = Callable[[Any], Iterable[Fault]]


def carry_out(checks: Mapping[str, Check], facts: object, project: int | None) -> Iterator[Finding]:
    """Every check over the facts, each on its own: one that cannot be carried out says so."""
    for name, check in checks.items():
        try:
            for fault in check(facts):
                yield Finding(name, project, fault.severity, fault.what, fault.mend)
        except NotObserved as gap:
            mend = "mend the other findings, and run second-look doctor again"
            yield Finding(name, project, "warning", f"not checked: {gap}", mend, carried_out=False)
        except Exception as fault:  # an odd answer must cost the other checks nothing
            log.exception("a check failed", check=name, project=project)
            what = f"not checked: {type(fault).__name__}: {fault}"
            yield Finding(name, project, "warning", what, "report it, with the log above", carried_out=False)
