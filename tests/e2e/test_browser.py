"""The labelling screen as an annotator sees it, in a real browser at 1366 x 768."""

from playwright.sync_api import Page, Response
from sqlalchemy import select

from demo.run import Running
from tasks.codec import decode_result
from tasks.tables import Annotation, Published


def is_next_task(response: Response) -> bool:
    return "id=next_task" in response.url and response.request.method == "POST"


def ticked(page: Page) -> set[str]:
    return {str(box.get_attribute("name")) for box in page.locator(".sl-answers input:checked").all()}


def expected_ticks(loop: Running, row: Published) -> set[str]:
    labels = decode_result(loop.schema, row.shown).labels
    return {name for names in labels.values() for name in names}


def test_an_annotator_works_down_the_queue(loop: Running, log_in, scrollable, until) -> None:  # type: ignore[no-untyped-def]
    page = log_in(loop.url, loop.credentials.admin)
    with loop.store.begin() as session:
        order = session.scalars(select(Published).where(Published.version == 1).order_by(Published.rank)).all()
    page.goto(f"{loop.url}/projects/{loop.project}/data")
    with page.expect_response(is_next_task) as served:
        page.get_by_text("Label All Tasks").click()
    kinds = set()
    for row in order[:6]:
        assert served.value.json()["id"] == row.task_id  # exactly the next-ranked task
        page.wait_for_selector(".sl-answers .lsf-choices")
        text = page.locator("[data-testid=htx-textbox-content]").first
        assert text.inner_text().strip() == row.why
        assert ticked(page) == expected_ticks(loop, row)
        kinds.add(row.kind)

        # Everything there is to answer is visible at once.
        assert scrollable(page) == 0
        submit = page.get_by_test_id("bottombar-submit-button")
        floor = submit.bounding_box()["y"]  # type: ignore[index]
        groups = page.locator(".lsf-choices").all()
        assert len(groups) == 8  # seven controls and the flag
        assert all((box := group.bounding_box())["y"] >= 0 and box["y"] + box["height"] <= floor for group in groups)  # type: ignore[index]

        # The reason cannot be written over.
        text.click()
        page.keyboard.type("overwritten")
        assert text.inner_text().strip() == row.why

        for line in page.locator(".sl-answers .sl-row").all():
            choices = line.locator(".lsf-choices label")
            if (
                line.locator(".lsf-choices").count()
                and not line.locator("input:checked").count()
                and choices.count() > 1
            ):
                choices.first.click()
        with page.expect_response(is_next_task) as served:
            submit.click()
    assert "ranked" in kinds

    def arrived() -> bool:
        with loop.store.begin() as session:
            said = session.scalars(select(Annotation).where(Annotation.origin == "person")).all()
            return {row.task_id for row in order[:6]} <= {annotation.task_id for annotation in said}

    until(arrived)
    with loop.store.begin() as session:
        parents = dict(session.execute(select(Annotation.task_id, Annotation.parent_prediction)).all())
    assert all(parents[row.task_id] == row.prediction_id for row in order[:6])
