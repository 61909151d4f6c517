"""Checks of what must be running: the store, the worker, its reconciles and jobs, the project's parameters."""

from collections.abc import Iterator

from backend.doctor.findings import Fault, Unknown, error, known, warning
from backend.doctor.observed import Facts, ProjectFacts

QUIET = 300.0  # seconds without a reconcile, however often it is due


def store(seen: Facts) -> Iterator[Fault]:
    """The store can be opened, and some project is connected."""
    if isinstance(seen.store, Unknown):
        yield error(
            f"the store cannot be opened: {seen.store.reason}",
            "set SECOND_LOOK_DATABASE_URL to a database that runs, or SECOND_LOOK_STATE_DIR to a folder that can be"
            " written",
        )
    elif not seen.store:
        yield error("no project is connected yet", "second-look setup --project NUMBER")


def worker(seen: Facts) -> Iterator[Fault]:
    """A worker runs."""
    if not known(seen.workers):
        yield error(
            "no worker gives a sign of life: nothing is reconciled, refilled or trained",
            "start second-look worker (on the machine that is to train, with the same database)",
        )


def reconcile(seen: ProjectFacts) -> Iterator[Fault]:
    """The project was reconciled with Label Studio lately."""
    last, backend = known(seen.stored).row.synced_at, seen.backend
    patience = max(QUIET, 10 * backend.settings.poll_seconds)
    if last is None:
        yield warning("the project was never reconciled", "start second-look worker, and see its log")
    elif backend.now - last > patience:
        yield error(
            f"the last reconcile was {(backend.now - last) / 60:.0f} minutes ago; it is due every"
            f" {backend.settings.poll_seconds:g} s",
            "start second-look worker; if it runs, its log says what keeps it",
        )


def job(seen: ProjectFacts) -> Iterator[Fault]:
    """The last training did not fail."""
    last = known(seen.stored).job
    if last is not None and last.state == "failed":
        yield error(
            f"job {last.id} failed while {last.step or 'starting'}: {last.error}",
            f"mend what it names (the worker's log tells more), then second-look cycle --project {seen.id}",
        )


def alarms(seen: ProjectFacts) -> Iterator[Fault]:
    """The worker's last reconcile raised no alarm."""
    for sentence in known(seen.stored).row.alarms:
        yield warning(f"alarm of the worker: {sentence}", "docs/operations.md says what each alarm means")


def extra_parameters(seen: ProjectFacts) -> Iterator[Fault]:
    """The extra parameters of the project's ML backend are allowed values."""
    try:
        seen.backend.settings.tuned(known(seen.stored).row.extra_params)
    except ValueError as fault:
        yield error(str(fault), "change it in Settings, Model, extra params")
