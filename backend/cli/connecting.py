"""`setup` and `disconnect`: a project of one's own Label Studio, tied to this backend and released again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.text import Text

from backend.cli.terminal import Json, fail, show

Number = Annotated[int | None, typer.Option("--project", help="Label Studio's number; without it, they are listed")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be changed and change nothing")]


def setup(
    project: Number = None,
    dry_run: DryRun = False,
    poll: Annotated[
        bool,
        typer.Option(
            "--poll", help="Without ML backend and webhook: the worker asks Label Studio, which never calls back"
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Connect a project of Label Studio to this backend; run it again and nothing changes."""
    from backend import connection, jobs
    from backend.settings import settings
    from tasks.schema import SchemaError
    from tasks.store import Store

    chosen = settings()
    with _label_studio(chosen) as client:
        number = _chosen(client, project, as_json)
        store = Store.open(chosen.database)
        try:
            with store.turn(number):
                changes = connection.set_up(store, client, chosen, number, poll=poll, dry_run=dry_run)
        except SchemaError as error:
            raise fail(f"project {number}: nothing can be learnt with its label config: {error}") from error
    if changes and not dry_run:
        jobs.Bell(chosen).ring(number)
    _tell(number, changes, dry_run, as_json)


def disconnect(project: Number = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Undo `setup` and look after the project no more; annotations, predictions and models stay."""
    from backend import connection
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    with _label_studio(chosen) as client:
        number = _chosen(client, project, as_json)
        store = Store.open(chosen.database)
        with store.turn(number):
            changes = connection.take_down(store, client, chosen, number, dry_run=dry_run)
    _tell(number, changes, dry_run, as_json)


@contextmanager
def _label_studio(chosen: Any) -> Iterator[Any]:
    """The client, its token tried out; what goes wrong with Label Studio ends the command with a sentence."""
    import httpx

    from backend.label_studio import open_client
    from tasks.client import LabelStudioError

    if not chosen.label_studio_token.get_secret_value():
        raise fail(
            "set SECOND_LOOK_LABEL_STUDIO_TOKEN to a personal access token of Label Studio (Account & Settings,"
            " Personal Access Token)"
        )
    try:
        client = open_client(chosen)
        try:
            client.user()
            yield client
        finally:
            client.close()
    except LabelStudioError as error:
        raise fail(str(error)) from error
    except httpx.HTTPError as error:
        raise fail(
            f"Label Studio does not answer at {chosen.label_studio_url}: {error}. Is it running, and is"
            " SECOND_LOOK_LABEL_STUDIO_URL the address at which this machine reaches it?"
        ) from error


def _chosen(client: Any, number: int | None, as_json: bool) -> int:
    """The project meant; without one, Label Studio's projects are listed and the command ends."""
    if number is not None:
        return number
    found = [{"project": row["id"], "title": row["title"]} for row in client.projects()]
    lines = [f"  {row['project']}  {row['title']}" for row in found]
    show({"projects": found}, as_json, Text("\n".join(["Projects of this Label Studio:", *lines])))
    raise fail("name one with --project")


def _tell(project: int, changes: list[str], dry_run: bool, as_json: bool) -> None:
    heading = f"project {project}" + (", what would be changed:" if dry_run else ":")
    lines = [heading, *(f"  {sentence}" for sentence in changes or ["nothing to change"])]
    show({"project": project, "dry_run": dry_run, "changes": changes}, as_json, Text("\n".join(lines)))
