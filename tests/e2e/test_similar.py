"""The pictures of similar cases as an annotator sees them, in a real browser at 1366 x 768."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo import labelstudio
from demo.phantoms import write_phantoms
from tasks import datafolder, panel, queue, sync
from tasks.client import Client
from tasks.codec import decode_current, to_targets
from tasks.present import phrases_of, present
from tasks.queue import Planned
from tasks.schema import parse_label_config
from tasks.similar import address, to_html
from tasks.store import Store
from tasks.tables import Published, Task, Version

CONFIG = (Path(__file__).parents[2] / "docs" / "examples" / "thyroid-similar.xml").read_text()
SCHEMA = parse_label_config(CONFIG)
PHRASES = phrases_of("en")


@dataclass(frozen=True)
class Review:
    """A project of phantoms, and the order of its first tasks: two with similar cases and one blind between them."""

    project: int
    store: Store
    client: Client
    order: list[Published]


@pytest.fixture(scope="module")
def review(
    label_studio: Any,
    make_project: Callable[..., int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Review]:
    folder = label_studio.document_root / "similar"
    write_phantoms(folder, 12, 3)
    read = datafolder.read(folder, SCHEMA, labelstudio.config_fields(CONFIG))
    project = make_project("Similar cases", CONFIG, folder, read.task_data())
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('similar') / 'store.db'}")
    store.register_project(project, CONFIG)
    client = Client(label_studio.url, label_studio.token)
    sync.reconcile(store, client, project)
    with store.begin() as session:
        tasks = session.query(Task).order_by(Task.id).all()
        about = {"created_at": 0, "seconds": 1, "schema": "", "labels": 0, "metrics": {}}
        session.add(Version(project_id=project, number=1, **about))
    cases = [(task.id, decode_current(SCHEMA, task.data)[0]) for task in tasks[-3:]]
    pictures = {task.id: str(address(task.image, task.id)) for task in tasks[-3:]}
    rng = np.random.default_rng(4)
    planned = []
    for task, slot in zip(tasks, ("ranked", "blind", "control"), strict=False):
        probabilities = {head.name: rng.dirichlet(np.ones(len(head.classes))) for head in SCHEMA.heads}
        if slot == "control":  # where model and record agree; at random they differ in most, and the text is long
            recorded = to_targets(SCHEMA.heads, [task.current])
            probabilities = {name: 0.8 * recorded[name][0] + 0.2 * p for name, p in probabilities.items()}
        nearest = [] if slot == "blind" else cases
        text, shown = present(SCHEMA, PHRASES, probabilities, task.current, slot, "disagreement", nearest)
        planned.append(Planned(task.id, slot, None, text, shown, to_html(SCHEMA, nearest, pictures, PHRASES) or None))
    queue.enter(store, project, 1, planned)
    queue.push(store, client, project, 1)
    queue.flip(store, client, project, 1)
    assert panel.fill(store, client, project) == []
    with store.begin() as session:
        order = session.query(Published).order_by(Published.rank).all()
    yield Review(project, store, client, order)
    client.close()


def test_the_pictures_of_similar_cases_are_drawn_on_one_screen(  # type: ignore[no-untyped-def]
    review: Review, label_studio: Any, log_in, scrollable
) -> None:
    page = log_in(label_studio.url, label_studio.credentials.annotator)
    page.goto(f"{label_studio.url}/projects/{review.project}/data")
    page.get_by_text("Label All Tasks").click()
    for row in review.order:
        page.wait_for_selector(".sl-answers .lsf-choices")
        page.wait_for_function("text => document.body.innerText.includes(text)", arg=row.why)
        pictures = page.locator(".sl-similar img")
        expected = 0 if row.similar is None else 3
        page.wait_for_function(
            """count => { const found = [...document.querySelectorAll('.sl-similar img')];
            return found.length === count && found.every(picture => picture.complete); }""",
            arg=expected,
        )
        assert pictures.count() == expected
        assert all(picture.evaluate("it => it.naturalWidth") > 0 for picture in pictures.all())
        assert (page.locator(".sl-similar").count() == 1) == (expected > 0)
        if expected:
            said = page.locator(".sl-similar figcaption b").all_inner_texts()
            assert ", ".join(said).split()[0] in row.why  # the same cases as in the text

        assert scrollable(page) == 0
        submit = page.get_by_test_id("bottombar-submit-button")
        floor = submit.bounding_box()["y"]
        seen = [*page.locator(".lsf-choices").all(), *page.locator(".sl-similar figure").all()]
        boxes = [part.bounding_box() for part in seen]
        assert all(box["y"] >= 0 and box["y"] + box["height"] <= floor for box in boxes)

        for line in page.locator(".sl-answers .sl-row").all():
            choices = line.locator(".lsf-choices label")
            if choices.count() > 1 and not line.locator("input:checked").count():
                choices.first.click()
        submit.click()
