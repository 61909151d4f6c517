"""`tile` and `untile`: large images as patch tasks, and their masks put together again."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.terminal import Json, bar, fail, show

TOLD = 10  # problems that are printed; --json has all

LabelConfig = Annotated[Path, typer.Option(help="The project's label config")]
Out = Annotated[Path, typer.Option(help="Where to write")]


def tile(
    folder: Annotated[Path, typer.Argument(help="A data folder: labels.csv beside its images")],
    label_config: LabelConfig,
    out: Out,
    side: Annotated[int, typer.Option(min=1, help="Side of a tile in pixels")] = 1024,
    overlap: Annotated[int, typer.Option(min=0, help="Pixels that neighbours share at least")] = 0,
    as_json: Json = False,
) -> None:
    """Cut the images of a data folder, and their masks, into the tiles of a new one, whose tasks are quick to open."""
    from rich.text import Text

    from backend.settings import settings
    from backend.tiling import cut
    from tasks.datafolder import DataFolderError

    schema = _schema(label_config)
    if overlap >= side:
        raise fail(f"tiles of {side} pixels cannot overlap by {overlap}: --overlap takes 0 to {side - 1}")
    try:
        with bar() as progress:
            task = progress.add_task("cutting", total=None)
            found = cut(
                folder,
                schema,
                out,
                side,
                overlap,
                int(settings().max_megapixels * 1e6),
                lambda done, total: progress.update(task, completed=done, total=total),
            )
    except DataFolderError as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(f"{out} cannot be written: {error}") from error
    value = {"folder": str(out), "images": found.images, "tiles": found.tiles, "problems": list(found.problems)}
    lines = [f"{out}: {found.tiles} tiles of {found.images} images", *_told(found.problems)]
    if schema.group_field is None:
        lines.append('set model_group="$tile_of" on the Image of the label config: the tiles of an image share a fold')
    show(value, as_json, Text("\n".join(lines)))


def untile(
    export: Annotated[Path, typer.Argument(help="The tile project, exported from Label Studio as JSON")],
    tiles: Annotated[Path, typer.Option(help="The folder that `tile` wrote")],
    label_config: LabelConfig,
    out: Out,
    as_json: Json = False,
) -> None:
    """Write one mask PNG for each image that was cut, of what people marked in its tiles."""
    from rich.text import Text

    from backend.tiling import put_together
    from tasks.datafolder import DataFolderError

    schema = _schema(label_config)
    if not schema.masks:
        raise fail(f"{label_config} asks for no masks: add a BrushLabels or PolygonLabels control")
    try:
        tasks = json.loads(export.read_bytes())
    except OSError as error:
        raise fail(f"{export} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise fail(f"{export} is no JSON: {error}") from error
    if not isinstance(tasks, list):
        raise fail(f"{export} is no list of tasks: export the project as JSON")
    try:
        with bar() as progress:
            task = progress.add_task("putting together", total=None)
            found = put_together(
                tiles, schema, tasks, out, lambda done, total: progress.update(task, completed=done, total=total)
            )
    except DataFolderError as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(f"{out} cannot be written: {error}") from error
    value: dict[str, Any] = {
        "folder": str(out),
        "images": {image: round(share, 6) for image, share in found.images.items()},
        "problems": list(found.problems),
    }
    parts = sum(share < 1 for share in found.images.values())
    lines = [f"{out}: masks of {len(found.images)} images", *_told(found.problems)]
    if parts:
        lines.append(f"{parts} of them were not reviewed whole: what nobody saw is 0 (labels.csv has the share)")
    show(value, as_json, Text("\n".join(lines)))


def _schema(label_config: Path) -> Any:
    from tasks.schema import SchemaError, parse_label_config

    try:
        return parse_label_config(label_config.read_text(encoding="utf-8"))
    except OSError as error:
        raise fail(f"{label_config} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise fail(f"{label_config} is not UTF-8 (byte {error.start})") from error
    except SchemaError as error:
        raise fail(f"{label_config}: {error}") from error


def _told(problems: tuple[str, ...]) -> list[str]:
    more = [f"and {len(problems) - TOLD} more: --json has them all"] if len(problems) > TOLD else []
    return [*problems[:TOLD], *more]
