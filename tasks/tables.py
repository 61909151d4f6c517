"""The tables of the store: what Label Studio holds as we last saw it, what we published, and what we learnt.

Times of ours are seconds since the epoch (UTC); times of Label Studio are kept as it sends them (ISO 8601, UTC).
"""

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasks.schema import Labels


class Base(DeclarativeBase):
    """Named constraints, so that migrations can drop them on SQLite and PostgreSQL alike."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, Labels: JSON}  # noqa: RUF012


class Project(Base):
    """A Label Studio project that was connected to this backend."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # Label Studio's own number
    title: Mapped[str] = mapped_column(default="")
    label_config: Mapped[str]
    extra_params: Mapped[dict[str, Any]] = mapped_column(default=dict)
    cursor: Mapped[str | None]  # task.updated_at from which the next incremental sync reads
    synced_at: Mapped[float | None]
    full_sync_at: Mapped[float | None]
    version: Mapped[int | None]  # number of the model in force: the newest complete one that took over
    published: Mapped[int | None]  # number of the version whose predictions order the queue
    alarms: Mapped[list[Any]] = mapped_column(default=list)  # sentences for an admin
    created_at: Mapped[str | None]  # Label Studio's: two Label Studios number their projects alike
    # How it was connected: hand, setup or poll; none: it is looked after no more.
    connection: Mapped[str] = mapped_column(default="hand", server_default="hand")
    probabilities: Mapped[str | None]  # the file its order comes from, where that was made elsewhere
    expert_view: Mapped[int | None]  # Label Studio's number of the Data Manager tab of flagged tasks
    stopped: Mapped[str | None]  # why no more trainings come; None: they do


class Task(Base):
    """A task as Label Studio has it, with its place in the cross-fit."""

    __tablename__ = "tasks"
    __table_args__ = (Index("ix_tasks_project_open", "project_id", "is_labeled"),)

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[dict[str, Any]]
    image: Mapped[str]  # the image's URL
    group: Mapped[str | None] = mapped_column("group_key")  # patient, or the image's own bytes
    site: Mapped[str | None]
    fold: Mapped[int | None]  # 0..K-1, or -1 in the frozen hold-out; None until its image was read
    current: Mapped[Labels] = mapped_column(default=dict)  # labels to be checked
    pixels: Mapped[str | None]  # sha256 of the image file's bytes, under which its pixels are cached
    image_error: Mapped[str | None]  # why the image cannot be used
    problems: Mapped[list[Any]] = mapped_column(default=list)  # label values the config does not know
    is_labeled: Mapped[bool] = mapped_column(default=False)
    annotations: Mapped[int] = mapped_column(default=0)  # not cancelled
    cancelled: Mapped[int] = mapped_column(default=0)
    overlap_before: Mapped[int | None]  # while we hold a labelled task open for review: the overlap to give back
    updated_at: Mapped[str]
    updated_by: Mapped[int | None]
    deleted_at: Mapped[float | None]


class Annotation(Base):
    """An annotation as Label Studio has, or had, it."""

    __tablename__ = "annotations"
    __table_args__ = (Index("ix_annotations_task", "project_id", "task_id"),)

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task_id: Mapped[int]
    completed_by: Mapped[int | None]
    updated_by: Mapped[int | None]
    created_at: Mapped[str]
    updated_at: Mapped[str]
    lead_time: Mapped[float | None]  # seconds
    was_cancelled: Mapped[bool]
    parent_prediction: Mapped[int | None]
    result: Mapped[list[Any]]
    labels: Mapped[Labels]
    flagged: Mapped[bool] = mapped_column(default=False)
    confidence: Mapped[float | None]
    origin: Mapped[str]  # person, earlier, imported, machine, empty or skipped: only `person` counts and adjudicates
    trained_in: Mapped[int | None]  # version that learnt its present state; None: counts towards the next
    deleted_at: Mapped[float | None]


class Entry(Base):
    """One event of the ledger; each row's hash covers the row before it."""

    __tablename__ = "ledger"
    __table_args__ = (
        UniqueConstraint("project_id", "previous"),  # the database itself refuses a fork
        Index("ix_ledger_event", "project_id", "event"),
    )

    seq: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    at: Mapped[str]
    event: Mapped[str]  # created, changed, deleted; recorded; configured, trained, imported, promoted, published...
    task_id: Mapped[int | None]
    annotation_id: Mapped[int | None]
    actor: Mapped[int | None]
    body: Mapped[dict[str, Any]]  # from, to, what was shown
    previous: Mapped[str]
    hash: Mapped[str]


class Version(Base):
    """A trained model; its weights lie in a folder of the same number."""

    __tablename__ = "versions"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[float]
    seconds: Mapped[float]  # how long its training took
    schema: Mapped[str]  # fingerprint of the heads
    labels: Mapped[int]  # tasks with a label it learnt from
    metrics: Mapped[dict[str, Any]]
    verdict: Mapped[dict[str, Any] | None]  # whether it took over from the model before it, and on what figures
    published_at: Mapped[float | None]  # when its order took over
    deleted_at: Mapped[float | None]  # when its predictions were deleted in Label Studio


class Published(Base):
    """One task of a published order, with what its annotator is shown."""

    __tablename__ = "published"
    __table_args__ = (Index("ix_published_prediction", "project_id", "prediction_id"),)

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rank: Mapped[int]
    kind: Mapped[str]  # ranked, control, blind or holdout
    score: Mapped[float | None]  # hybrid; None for tasks drawn at random
    why: Mapped[str]
    shown: Mapped[list[Any]]  # the prediction's results
    similar: Mapped[str | None]  # HTML of the reviewed cases most like it, where the label config has a place for it
    prediction_id: Mapped[int | None]  # Label Studio's; None: not sent yet; 0: sent, not seen there yet
    at: Mapped[float]  # when it was sent


class Job(Base):
    """Background work; at most one of a project runs, held by a lease that a killed worker lets run out."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_state", "state", "project_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str]  # cycle, catch-up, probabilities or promotion
    state: Mapped[str]  # queued, running, done, failed
    reason: Mapped[str] = mapped_column(default="")
    step: Mapped[str] = mapped_column(default="")
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    version: Mapped[int | None]  # the version it makes
    attempts: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    error: Mapped[str | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class Heartbeat(Base):
    """A worker that is, or was lately, running."""

    __tablename__ = "heartbeats"

    owner: Mapped[str] = mapped_column(primary_key=True)  # host:pid
    at: Mapped[float]
