"""The facts that the checks judge: of the backend, its machine and its Label Studio, and of each project."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.doctor.findings import Maybe, Unknown
from backend.settings import Settings
from tasks.project import Connection
from tasks.tables import Job, Project

Row = dict[str, Any]

SERVER_SETTINGS = ("TASK_LOCK_TTL", "DJANGO_DB")
BULK_FLAG = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short"


@dataclass(frozen=True)
class Answer:
    """What an address answered: HTTP status, where it redirects to, and the beginning of its text."""

    status: int
    location: str | None
    text: str


@dataclass(frozen=True)
class Machine:
    """What of the machine decides how training runs. Bytes for sizes.

    gpus: NVIDIA device files; driver: the kernel driver's version line. torch_cuda: CUDA that torch was built for
    (None: a CPU build); cuda_trouble: why a small sum on the GPU failed (None: it did not).
    """

    gpus: tuple[str, ...]
    driver: str
    torch: str
    torch_cuda: str | None
    cuda_trouble: str | None
    weights_trouble: str | None
    state_dir_writable: bool
    disk_free: int


@dataclass(frozen=True)
class Facts:
    """One backend: settings, the store's workers, the machine, and what Label Studio shows of itself.

    address: what Label Studio's /health answers. whoami: the user of our token. url_refusals: how Label Studio judges
    our two addresses, "ml" and "webhook" (None: it takes it). server: SERVER_SETTINGS by name (only a superuser's
    token sees them). members: people of the organization. connection: how the settings would have a project connected.
    poll: all projects do without ML backend and webhook.
    """

    settings: Settings
    now: float
    store: Maybe[int]
    address: Maybe[Answer]
    whoami: Maybe[Row]
    url_refusals: Mapping[str, Maybe[str | None]]
    server: Maybe[Mapping[str, str]]
    flags: Maybe[Mapping[str, Any]]
    members: Maybe[int]
    workers: Maybe[list[str]]
    machine: Maybe[Machine]
    connection: Connection
    poll: bool


@dataclass(frozen=True)
class Serving:
    """A task that somebody was served, judged by the annotation (or skip) that came of it.

    at: seconds since the epoch, the submit less its lead time. version, rank: of the published prediction it began
    from, None where it began from none. head_open: whether tasks of the published order were waiting then.
    """

    task: int
    by: int | None
    at: float
    version: int | None
    rank: int | None
    head_open: bool


@dataclass(frozen=True)
class Stored:
    """What the store knows of a project.

    pushed: predictions of the published order that Label Studio was given. waiting: tasks of it that nobody has
    annotated or skipped. active: annotators of the last day; annotators: of the last month. images_failed: task and
    reason of the first few, images_broken how many in all.
    """

    row: Project
    job: Job | None
    tasks: int
    pushed: int
    waiting: int
    active: int
    annotators: int
    images_broken: int
    images_failed: tuple[tuple[int, str], ...]
    servings: tuple[Serving, ...]


@dataclass(frozen=True)
class ProjectFacts:
    """One project: how it was connected last, what the store knows, and what Label Studio shows."""

    id: int
    backend: Facts
    connection: Connection
    stored: Maybe[Stored]
    remote: Maybe[Row]
    ml_backends: Maybe[list[Row]]
    webhooks: Maybe[list[Row]]
    model_versions: Maybe[Mapping[str, int]]
    wants_refill: Maybe[bool]

    @property
    def poll(self) -> bool:
        """Whether the project does without ML backend and webhook."""
        return not isinstance(self.stored, Unknown) and self.stored.row.connection == "poll"
