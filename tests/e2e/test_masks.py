"""Masks of two classes and a choice at the labelling screen, in a real browser: shown, corrected, submitted, learnt."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page
from sqlalchemy import select

from backend import jobs
from backend.cycle import Cycle
from backend.label_studio import open_client
from backend.marked import Marked
from backend.registry import Registry, load_json
from backend.settings import Settings
from backend.snapshot import Snapshot
from backend.worker import Worker
from demo import labelstudio
from demo.correction import known_masks
from demo.labelstudio import Account
from demo.oracle import Annotator, take_turns
from tasks import datafolder, sync
from tasks.mask_codec import DecodedMasks, Patch, decode_masks
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Published

CONFIG = (
    (Path(__file__).parents[2] / "docs" / "examples" / "nuclei.xml")
    .read_text()
    .replace('background="#e8590c"/>', 'background="#e8590c"/><Label value="debris" background="#2b8a3e"/>')
    .replace(
        '<Header value="Reviewed"',
        '<Choices name="grade" toName="image" model_current="$grade"><Choice value="bright"/><Choice value="dim"/>'
        '</Choices><Header value="Reviewed"',
    )
)
SCHEMA = parse_label_config(CONFIG)
IMAGES, MARKED, HEIGHT, WIDTH = 40, 8, 64, 96
REGIONS = """() => window.Htx.annotationStore.selected.regionStore.regions.map(
    region => [region.cleanId, region.type, region.origin])"""


@dataclass(frozen=True)
class Place:
    """A project of squares, all graded, of which a person marked MARKED whole; the first model's order is published."""

    project: int
    settings: Settings
    store: Store

    def worked(self, version: int) -> None:
        """Let a worker go on until it has published a version."""

        def published() -> bool:
            row = self.store.project(self.project)
            return row is not None and row.published == version

        Worker(self.settings, self.store).run(until=published)

    def folder(self, version: int) -> Path:
        return Registry(self.settings.state_dir).version(self.project, version)

    def marked(self, version: int) -> tuple[Snapshot, Marked]:
        return Snapshot.load(self.folder(version) / "snapshot.npz"), Marked.load(self.folder(version) / "marked.json")


def write_squares(folder: Path) -> None:
    """A data folder of squares on dark noise, bright or dim ones, with a striped piece of debris in a corner."""
    rng = np.random.default_rng(0)
    (folder / "masks").mkdir(parents=True)
    lines = ["file,grade,mask"]
    for number in range(IMAGES):
        bright = bool(number % 2)
        pixels = rng.integers(0, 60, (HEIGHT, WIDTH), dtype=np.uint8)
        top, left = rng.integers(4, 30, 2)
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        mask[44:, 76:] = 2
        mask[top : top + 28, left : left + 36] = 1
        pixels[mask == 1] += 180 if bright else 110
        pixels[(mask == 2) & (np.arange(WIDTH) % 4 < 2)] += 180
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
        lines.append(f"{number}.png,{'bright' if bright else 'dim'},masks/{number}.png")
    (folder / "labels.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def place(
    label_studio: Any,
    make_project: Callable[..., int],
    tiny: Callable[..., tuple[Settings, dict[str, str]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    folder = label_studio.document_root / "squares"
    write_squares(folder)
    read = datafolder.read(folder, SCHEMA, labelstudio.config_fields(CONFIG))
    project = make_project("Squares", CONFIG, folder, read.task_data())
    settings, _ = tiny(
        LABEL_STUDIO_URL=label_studio.url,
        LABEL_STUDIO_TOKEN=label_studio.token,
        STATE_DIR=str(tmp_path_factory.mktemp("squares")),
        BACKBONE="test_resnet",
        UNET_STEPS="40",
        CROP_SIZE="32",
        PATCH_SIZE="16",
        PATCHES="3",
        RANDOM_SLOTS="false",  # what is served first shows its mask
        GATE_LEVEL="1",  # a few squares more must not be refused by chance
        POLL_SECONDS="1",
    )
    store = Store.open(settings.database)
    store.register_project(project, CONFIG, connection="poll")
    client = open_client(settings)
    sync.reconcile(store, client, project)  # what is answered from now on is a person's word, and no record
    client.close()
    expert = Annotator(label_studio.admin, project, SCHEMA, "admin")
    assert len(list(take_turns([expert], read.truth, MARKED, masks=known_masks(read)))) == MARKED
    place = Place(project, settings, store)
    place.worked(1)
    return place


class Screen:
    """What the labelling screen shows of an image, by the image's own pixels."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.wait_for_function("() => document.querySelector('img[alt=image]')?.naturalWidth > 0")
        self.box = page.locator("img[alt=image]").bounding_box()
        self.window = page.locator(".konvajs-content").bounding_box()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where on the page a place in the image is."""
        return self.box["x"] + x / WIDTH * self.box["width"], self.box["y"] + y / HEIGHT * self.box["height"]

    def shows(self, mask: NDArray[np.bool_], patches: Sequence[Patch]) -> bool:
        """Whether the mask lies orange on the grey image, and each rectangle has a blue side."""
        picture = np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")).astype(int)
        warmth = picture[..., 0] - picture[..., 2]
        found = np.zeros((HEIGHT, WIDTH), dtype=bool)
        seen = np.zeros((HEIGHT, WIDTH), dtype=bool)
        for row, column in np.ndindex(HEIGHT, WIDTH):
            x, y = (round(place) for place in self.at(column + 0.5, row + 0.5))
            seen[row, column] = self.visible(x, y)
            found[row, column] = seen[row, column] and warmth[y, x] > 40
        for patch in patches:
            sides = [(patch.x, patch.y + patch.height / 2), (patch.x + patch.width, patch.y + patch.height / 2)]
            sides += [(patch.x + patch.width / 2, patch.y), (patch.x + patch.width / 2, patch.y + patch.height)]
            places = [(round(x), round(y)) for x, y in (self.at(*side) for side in sides)]
            blue = [warmth[y - 2 : y + 3, x - 2 : x + 3].min() < -60 for x, y in places if self.visible(x, y)]
            if not blue or not all(blue):
                return False
        return bool((found == mask)[seen].mean() > 0.95)  # the sides of rectangles hide a few pixels

    def visible(self, x: float, y: float) -> bool:
        """Whether a place on the page is one of the image, and not below the tools on its right."""
        across, down = x - self.window["x"], y - self.window["y"]
        return 4 < across < self.window["width"] - 60 and 4 < down < self.window["height"] - 4

    def stroke(self, patch: Patch) -> None:
        """Drag the mouse through the middle of a rectangle."""
        middle = patch.y + patch.height / 2
        self.page.mouse.move(*self.at(patch.x + patch.width / 4, middle))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(patch.x + patch.width * 3 / 4, middle), steps=8)
        self.page.mouse.up()


def covered(patches: Sequence[Patch]) -> NDArray[np.bool_]:
    found = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for patch in patches:
        found[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width] = True
    return found


def decoded(result: object) -> DecodedMasks:
    return decode_masks(SCHEMA, result, HEIGHT, WIDTH)


def test_a_mask_is_drawn_corrected_in_a_rectangle_and_learnt(
    place: Place, label_studio: Any, log_in: Callable[[str, Account], Page], until: Callable[..., None]
) -> None:
    page = log_in(label_studio.url, label_studio.credentials.annotator)
    page.goto(f"{label_studio.url}/projects/{place.project}/data")
    with page.expect_response(lambda answer: "id=next_task" in answer.url) as served:
        page.get_by_text("Label All Tasks").click()
    task = served.value.json()["id"]
    with place.store.begin() as session:
        first = session.scalars(select(Published).order_by(Published.rank)).first()
    assert first is not None and first.task_id == task
    shown = decoded(first.shown)
    assert shown.problems == () and len(shown.patches) == 3 and shown.masks["mask"].any(axis=(1, 2)).all()
    (suggested,) = (region["value"]["choices"][0] for region in first.shown if region["from_name"] == "grade")

    # The page holds our regions, and the canvas shows them: the mask in its colour, the rectangles' sides in theirs.
    page.wait_for_function(f"() => ({REGIONS})().length === 5")
    assert page.evaluate(REGIONS) == [
        *([f"mask-{number}-0", "brushregion", "prediction"] for number in range(2)),
        *([f"look-{number}", "rectangleregion", "prediction"] for number in range(3)),
    ]
    mask = shown.masks["mask"][0]
    until(lambda: Screen(page).shows(mask, shown.patches), 30)
    screen = Screen(page)
    assert screen.box == pytest.approx(screen.window, abs=2)  # all of the image is in sight

    # The grade that the model suggests is ticked; the annotator says the other.
    (ticked,) = page.locator(".sl-answers input:checked").all()
    assert ticked.get_attribute("name") == suggested
    other = {"bright": "dim", "dim": "bright"}[suggested]
    page.locator(f".sl-answers input[name='{other}']").check(force=True)

    # A stroke of the brush in the first rectangle, or of the eraser where that lies in the mask.
    patch, here = shown.patches[0], covered(shown.patches[:1])
    full = bool(mask[here].mean() > 0.5)
    page.get_by_text("nucleus", exact=True).last.click()
    page.keyboard.press("e" if full else "b")
    screen.stroke(patch)
    page.wait_for_function(f"() => ({REGIONS})()[0][2] === 'prediction-changed'")
    page.get_by_text("Only the rectangles").click()
    with page.expect_response(lambda answer: "id=next_task" in answer.url):
        page.get_by_test_id("bottombar-submit-button").click()

    # It arrives as it was drawn: nothing has changed but what the stroke went over.
    worker = Worker(place.settings, place.store)
    with place.store.turn(place.project):
        assert worker.look_after(place.project, False) == []
    with place.store.begin() as session:
        (annotation,) = session.scalars(select(Annotation).where(Annotation.task_id == task)).all()
    said = decoded(annotation.result)
    assert said.problems == ()
    assert [(place.x, place.y, place.width, place.height) for place in said.patches] == [
        (place.x, place.y, place.width, place.height) for place in shown.patches
    ]
    np.testing.assert_array_equal(said.reviewed, covered(shown.patches))
    corrected = said.masks["mask"][0]
    changed = corrected != mask
    assert changed.sum() > 10 and not (changed & ~here).any() and (corrected[changed] != full).all()
    np.testing.assert_array_equal(said.masks["mask"][1], shown.masks["mask"][1])

    # The next cycle learns the grade, and exactly the pixels in the rectangles, as they were left.
    jobs.request(place.store, place.project, Cycle.kind, "test")
    place.worked(2)
    _, before = place.marked(1)
    taken, marked = place.marked(2)
    (row,) = np.flatnonzero(taken.ids == task)
    assert row in marked.trained(taken.folds) and row not in before.rows and marked.people[row]
    examples = marked.examples(Registry(place.settings.state_dir), taken, np.array([row]))
    np.testing.assert_array_equal(examples.reviewed[0] != 0, covered(shown.patches))
    np.testing.assert_array_equal(examples.masks[0] != 0, said.masks["mask"] & covered(shown.patches))
    assert taken.adjudicated["grade"][row]
    np.testing.assert_array_equal(taken.targets["grade"][row], [other == "bright", other == "dim"])
    learnt = [load_json(place.folder(version) / "unets" / "made.json")["learnt_from"] for version in (1, 2)]
    assert learnt[0] != learnt[1] == marked.fingerprint(taken)
