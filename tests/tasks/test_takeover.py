"""What people do on a real Label Studio, step by step: after each the store equals it, and the ledger says who."""

from collections.abc import Callable
from typing import Any

from demo.labelstudio import call
from tasks.takeover import Changes, apply_page, exported

Make = Callable[..., Any]


def test_annotations_by_people(scene: Make) -> None:
    s = scene(5)
    one, two, three, four, five = s.ids()
    assert s.reconcile().full
    s.assert_equal()

    first = s.submit(one, s.choices(bom="malignant") + s.why("Recorded: benign."), s.annotator)
    skipped = s.skip(two, s.annotator)
    empty = s.submit(three, [])
    only_why = s.submit(four, s.why("Recorded: benign."))
    flagged = s.submit(five, s.choices(flag="expert"))
    s.draft(five, s.annotator)
    assert vars(s.reconcile()) == {"tasks": 5, "annotations": 5, "full": False}
    s.assert_equal()
    assert s.events() == [
        ("created", first, s.annotator),
        ("created", skipped, s.annotator),
        ("created", empty, s.admin),
        ("created", only_why, s.admin),
        ("created", flagged, s.admin),
    ]
    origins = [s.annotation(number).origin for number in (first, skipped, empty, only_why, flagged)]
    assert origins == ["person", "skipped", "empty", "empty", "person"]
    body = s.ledger()[0].body
    assert (body["from"], body["to"]) == ({"bom": ["benign"]}, {"bom": ["malignant"], "foci": []})
    actions = [entry.body["action"] for entry in s.ledger()]
    assert actions == ["corrected", "skipped", "empty", "empty", "flagged"]

    # Somebody else's edit keeps `completed_by`; a second annotation of the task is one more.
    s.edit(first, s.choices(bom="benign", foci="rim"), s.admin)
    second = s.submit(one, s.choices(bom="malignant"), s.admin)
    s.reconcile()
    s.assert_equal()
    assert s.events(5) == [("changed", first, s.admin), ("created", second, s.admin)]
    assert s.annotation(first).completed_by == s.annotator
    assert s.ledger()[5].body["from"] == {"bom": ["malignant"], "foci": []}
    # What held by then was the admin's edit; the annotator's second opinion is compared with it.
    assert s.ledger()[6].body["from"] == {"bom": ["benign"], "foci": ["rim"]}
    assert [entry.body["action"] for entry in s.ledger(5)] == ["corrected", "corrected"]

    s.delete(second, s.annotator)
    s.reconcile()
    s.assert_equal()
    assert s.events(7) == [("deleted", second, s.annotator)]
    assert s.ledger()[7].body["from"] == {"bom": ["malignant"], "foci": []}

    s.act("delete_tasks_annotations", [one, two, three], s.annotator)
    assert vars(s.reconcile()) == {"tasks": 3, "annotations": 3, "full": False}
    s.assert_equal()
    assert s.events(8) == [("deleted", number, s.annotator) for number in (first, skipped, empty)]
    assert vars(s.reconcile()) == {"tasks": 0, "annotations": 0, "full": False}


def test_who_deleted_is_unknown_when_another_change_hides_it(scene: Make) -> None:
    s = scene(1)
    (task,) = s.ids()
    annotation = s.submit(task, s.choices(bom="benign"))
    s.reconcile()
    s.delete(annotation, s.annotator)
    other = s.submit(task, s.choices(bom="malignant"), s.admin)
    s.reconcile()
    s.assert_equal()
    assert s.events(1) == [("deleted", annotation, None), ("created", other, s.admin)]


def test_a_bulk_deletion_under_way_waits_for_its_user(scene: Make) -> None:
    """Label Studio deletes the annotations, sends the webhooks, and only then names the user on the tasks."""
    s = scene(1)
    (task,) = s.ids()
    annotation = s.submit(task, s.choices(bom="benign"))
    s.reconcile()
    ((row,),) = s.client.tasks(s.project)
    with s.store.begin() as session:
        apply_page(session, s.project, s.schema, [row | {"annotations": []}], found := Changes())
    assert found.annotations == 0
    s.act("delete_tasks_annotations", [task], s.annotator)
    s.reconcile()
    assert s.events(1) == [("deleted", annotation, s.annotator)]


def test_made_from_predictions_and_imported(scene: Make) -> None:
    s = scene(2)
    one, two = s.ids()
    sent = [
        {"task": task, "result": s.choices(bom="malignant"), "score": 0.1, "model_version": "v1"} for task in s.ids()
    ]
    assert s.client.import_predictions(s.project, sent) == 2
    s.reconcile()
    s.act("predictions_to_annotations", [one, two], s.annotator, model_version="v1")
    (imported,) = s.add(
        {
            "data": {"file": "i.png", "image": "/images/i.png", "patient": "i", "bom": "benign"},
            "annotations": [{"result": s.choices(bom="malignant")}],
        }
    )
    assert not s.reconcile().full
    s.assert_equal()
    made = {entry.task_id: entry for entry in s.ledger()}
    assert {task: entry.body["origin"] for task, entry in made.items()} == {
        one: "machine",
        two: "machine",
        imported: "imported",
    }
    assert made[one].actor == s.annotator

    # Deleting the version empties `parent_prediction`; only an edit makes a person's annotation of it.
    s.client.delete_version(s.project, "v1")
    number = made[one].annotation_id
    s.reconcile(full=True)
    assert s.annotation(number).origin == "machine"
    s.edit(number, s.choices(bom="benign"), s.admin)
    s.reconcile()
    s.assert_equal()
    assert [s.annotation(made[task].annotation_id).origin for task in (one, two)] == ["person", "machine"]
    assert s.events(3) == [("changed", number, s.admin)]


def test_a_deleted_annotations_number_comes_back(scene: Make) -> None:
    """On SQLite an import gives the number after the largest there is."""
    s = scene(1)
    (task,) = s.ids()
    annotation = s.submit(task, s.choices(bom="benign"))
    s.reconcile()
    s.delete(annotation, s.annotator)
    (imported,) = s.add({"data": {"image": "/i.png", "patient": "", "bom": ""}, "annotations": [{"result": []}]})
    s.reconcile()
    s.assert_equal()
    assert s.annotation(annotation).task_id == imported
    assert s.events(1) == [("deleted", annotation, s.annotator), ("created", annotation, s.admin)]


def test_tasks_added_changed_and_deleted(scene: Make) -> None:
    s = scene(3)
    one, two, three = s.ids()
    annotation = s.submit(three, s.choices(bom="benign"))
    s.reconcile()
    with s.store.begin() as session:
        for number in (one, two):
            task = session.merge(s.task(number))
            task.pixels, task.fold = "digest", 2
            if number == two:
                task.group = "image:digest"

    s.patch(one, data={"file": "0.png", "image": "/images/0.png", "patient": "other", "bom": "malignant"})
    s.patch(two, data={"file": "1.png", "image": "/images/new.png", "patient": "", "bom": ""})
    (added,) = s.add({"file": "3.png", "image": "/images/3.png", "patient": "p1", "bom": ""})
    assert not s.reconcile().full
    s.assert_equal()
    assert (s.task(one).group, s.task(one).fold, s.task(one).pixels) == ("other", None, "digest")
    assert (s.task(two).group, s.task(two).fold, s.task(two).pixels) == (None, None, None)
    assert s.task(added).group == "p1"

    # A deleted task is seen by the count, also when another came at the same time; its number comes back on SQLite.
    s.act("delete_tasks", [three, added])
    assert s.reconcile().full
    s.assert_equal()
    assert s.events(1) == [("deleted", annotation, None)]
    assert s.task(added).deleted_at is not None
    again = s.add(*({"file": f"{n}.png", "image": f"/images/{n}.png", "patient": "", "bom": ""} for n in range(5, 8)))
    assert added in again
    s.reconcile()
    s.assert_equal()
    assert s.task(added).group is None


def test_a_changed_label_config_reads_everything_again(scene: Make) -> None:
    s = scene(2)
    one, two = s.ids()
    first = s.submit(one, s.choices(bom="malignant", flag="expert"))
    second = s.submit(two, s.choices(bom="benign"))
    s.reconcile()
    config = s.store.project(s.project).label_config
    # The flag is no flag any more, an empty `foci` no answer, and no current label is known.
    changed = config.replace(' model_role="flag"', "").replace(' model_current="$bom"', "")
    changed = changed.replace('choice="multiple"', 'choice="multiple" required="true"', 1)
    s.client.update_project(s.project, label_config=changed)
    s.store.register_project(s.project, changed)  # as /setup does before the reconcile
    assert s.reconcile().full
    assert s.annotation(first).labels == s.annotation(second).labels | {"bom": ["malignant"]} == {"bom": ["malignant"]}
    assert not s.annotation(first).flagged
    assert s.task(one).current == {}
    assert s.events(2) == [("changed", first, None), ("changed", second, None)]
    assert s.ledger()[2].body["because"] == "the label config changed"
    assert not s.reconcile().full
    assert s.reconcile(full=True).annotations == 0


def test_learnt_annotations_stay_learnt_until_they_say_something_else(scene: Make) -> None:
    s = scene(1)
    (task,) = s.ids()
    s.reconcile()
    annotation = s.submit(task, s.choices(bom="benign"))
    s.reconcile()
    with s.store.begin() as session:
        session.merge(s.annotation(annotation)).trained_in = 3
    s.edit(annotation, s.choices(bom="benign"), s.annotator)
    s.reconcile()
    s.assert_equal()
    assert s.annotation(annotation).trained_in == 3
    s.edit(annotation, s.choices(bom="malignant"), s.annotator)
    s.reconcile()
    assert s.annotation(annotation).trained_in is None


def test_a_changed_overlap_reopens_tasks(scene: Make) -> None:
    """It moves no `updated_at`: only the count of finished tasks tells."""
    s = scene(2)
    one, _ = s.ids()
    s.submit(one, s.choices(bom="benign"))
    s.reconcile()
    assert s.task(one).is_labeled
    s.client.update_project(s.project, maximum_annotations=2)
    assert s.reconcile().full
    s.assert_equal()
    assert not s.task(one).is_labeled
    assert not s.reconcile().full


def test_label_studios_export_says_what_a_reconcile_takes_over(scene: Make) -> None:
    s = scene(3)
    one, two, three = s.ids()
    s.reconcile()
    s.submit(one, s.choices(bom="malignant") + s.why("Because."), s.annotator)
    s.submit(one, s.choices(flag="expert"), s.admin)
    s.skip(two)
    s.submit(three, s.why("Recorded: benign."))
    s.reconcile()
    params = {"exportType": "JSON", "download_all_tasks": "true"}
    rows = call(s.users[s.admin], "GET", f"/api/projects/{s.project}/export", params=params)
    names = ("id", "completed_by", "updated_at", "parent_prediction", "result", "labels", "flagged", "confidence")
    found = {remote["id"]: exported(s.schema, remote) for row in rows for remote in row["annotations"]}
    assert len(found) == 4
    for number, read in found.items():
        stored = s.annotation(number)
        assert [getattr(read, name) for name in (*names, "origin")] == [
            getattr(stored, name) for name in (*names, "origin")
        ]
