"""Oracles on the real Label Studio: what is served, in which order, and what a submitted annotation carries."""

import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.utils import shuffle

from demo import labelstudio
from demo.labelstudio import Account, Credentials, call
from demo.oracle import Annotator, Visit, annotated, answer, duplicates, served_order_spearman, take_turns
from tasks.client import LabelStudioError
from tasks.codec import decode_result, encode_labels, encode_why
from tasks.schema import Labels, parse_label_config

CONFIG = """<View>
  <Image name="image" value="$image" model_group="$patient"/>
  <Text name="remark" value="$remark"/>
  <Choices name="bom" toName="image" required="true" model_current="$bom">
    <Choice value="benign"/><Choice value="malignant"/>
  </Choices>
  <Choices name="foci" toName="image" choice="multiple"><Choice value="none"/><Choice value="punctate"/></Choices>
  <TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>
</View>"""
SCHEMA = parse_label_config(CONFIG)
VERSION = "v1-queue-order"


def task_data(n: int) -> list[dict[str, Any]]:
    return [
        {"image": f"/data/local-files/?d=images/{i}.png", "file": f"{i}.png", "bom": "benign", "patient": f"p{i}"}
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def project(label_studio: Any) -> dict[str, Any]:
    made = labelstudio.create_project(label_studio.admin, "Oracle", CONFIG)
    assert labelstudio.import_tasks(label_studio.admin, made["id"], task_data(20), CONFIG) == 20
    return made


@pytest.fixture(scope="module")
def published(label_studio: Any, project: dict[str, Any]) -> dict[int, float]:
    """Predictions with shuffled scores, the project's sampling and version set to them: task id -> score."""
    ids = [task["id"] for task in labelstudio.list_tasks(label_studio.admin, project["id"])]
    order = shuffle(ids, random_state=3)
    scores = {task: (rank + 1) / 1e6 for rank, task in enumerate(order)}
    suggestion = encode_labels(SCHEMA, {"bom": ("malignant",)}) + encode_why(SCHEMA, "Recorded: benign.")
    suggestion[0]["score"] = 0.91
    predictions = [
        {"task": task, "model_version": VERSION, "score": score, "result": suggestion} for task, score in scores.items()
    ]
    path = f"/api/projects/{project['id']}"
    call(label_studio.admin, "POST", f"{path}/import/predictions", json=predictions)
    call(label_studio.admin, "PATCH", path, json={"sampling": "Uncertainty sampling", "model_version": VERSION})
    return scores


def test_two_annotators_work_through_the_published_order(
    label_studio: Any, project: dict[str, Any], published: dict[int, float]
) -> None:
    admin = Annotator(label_studio.admin, project["id"], SCHEMA, "admin")
    second = Annotator(label_studio.annotator, project["id"], SCHEMA, "annotator")
    files = [f"{i}.png" for i in range(20)]
    truth: dict[str, Labels] = {file: {"bom": ("malignant",), "foci": ("punctate",)} for file in files[:10]}
    truth |= {file: {"bom": ("benign",)} for file in files[10:]}

    finished = list(take_turns([admin, second], truth, 12))
    assert len(finished) == 12
    visits = admin.visits + second.visits
    assert sorted(v.task for v in visits) == sorted(sorted(published, key=published.__getitem__)[:12])
    assert served_order_spearman(visits, {VERSION: published}) == {VERSION: 1.0}
    assert duplicates(visits) == []
    assert len(admin.visits) == len(second.visits) == 6
    assert all(v.version == VERSION and v.score == published[v.task] for v in visits)

    for visit in visits:
        task = call(label_studio.admin, "GET", f"/api/tasks/{visit.task}")
        (annotation,) = task["annotations"]
        assert annotation["id"] == visit.annotation
        assert annotation["parent_prediction"] == visit.prediction == task["predictions"][0]["id"]
        assert annotation["lead_time"] > 0
        assert not annotation["was_cancelled"]
        decoded = decode_result(SCHEMA, annotation["result"])
        assert {k: v for k, v in decoded.labels.items() if v} == truth[task["data"]["file"]]
        assert decoded.shown == "Recorded: benign."
        origins = {region["from_name"]: region["origin"] for region in annotation["result"]}
        agreed = decoded.labels["bom"] == ("malignant",)
        assert origins == {"bom": "prediction" if agreed else "prediction-changed", "why": "prediction"} | (
            {"foci": "manual"} if agreed else {}
        )
    users = {annotation["completed_by"] for annotation in _annotations(label_studio.admin, visits)}
    assert len(users) == 2


def test_a_skip_goes_to_the_other_annotator(
    label_studio: Any, project: dict[str, Any], published: dict[int, float]
) -> None:
    admin = Annotator(label_studio.admin, project["id"], SCHEMA, "admin")
    second = Annotator(label_studio.annotator, project["id"], SCHEMA, "annotator")
    task = admin.next_task()
    assert task is not None
    identifier = admin.skip(task)
    annotation = call(label_studio.admin, "GET", f"/api/annotations/{identifier}")
    assert annotation["was_cancelled"]
    assert [region["origin"] for region in annotation["result"]] == ["prediction", "prediction"]
    offered = second.next_task()
    assert offered is not None
    assert offered["id"] == task["id"]
    # The answer of the first attempt got lost: the second one arrives at the same annotation.
    first = second.submit(offered, {"bom": ("benign",)}, 2.5)
    assert second.submit(offered, {"bom": ("benign",)}, 2.5) == first
    assert duplicates(admin.visits + second.visits) == []


def publish(label_studio: Any, project: int, version: str, scores: dict[int, float]) -> None:
    path, why = f"/api/projects/{project}", encode_why(SCHEMA, "Why.")
    rows = [{"task": t, "model_version": version, "score": score, "result": why} for t, score in scores.items()]
    call(label_studio.admin, "POST", f"{path}/import/predictions", json=rows)
    call(label_studio.admin, "PATCH", path, json={"sampling": "Uncertainty sampling", "model_version": version})


def test_what_was_held_while_a_version_took_over_comes_out_of_its_order(label_studio: Any) -> None:
    project = labelstudio.create_project(label_studio.admin, "Oracle, flip", CONFIG)["id"]
    labelstudio.import_tasks(label_studio.admin, project, task_data(4), CONFIG)
    first, second, third, _ = [task["id"] for task in labelstudio.list_tasks(label_studio.admin, project)]
    scores = {task: place / 1e6 for place, task in enumerate((first, second, third), start=1)}
    holder = Annotator(label_studio.admin, project, SCHEMA, "holder")
    other = Annotator(label_studio.annotator, project, SCHEMA, "other")
    publish(label_studio, project, "v1", {first: 1e-6})
    held = holder.next_task()
    assert held is not None and held["id"] == first
    publish(label_studio, project, "v2", scores)
    for expected in (second, third):
        task = other.next_task()
        assert task is not None and task["id"] == expected
        other.submit(task, {"bom": ("benign",)}, 1.0)
        if expected == second:
            holder.skip(held)
            late = other.next_task()
            assert late is not None and late["id"] == first  # the lowest score of all, offered only now
            other.submit(late, {"bom": ("benign",)}, 1.0)
    assert [visit.task for visit in other.visits] == [second, first, third]
    assert served_order_spearman(holder.visits + other.visits, {"v2": scores}) == {"v2": 1.0}
    assert served_order_spearman(other.visits, {"v2": scores})["v2"] < 1.0  # had nobody held it


def test_what_one_had_skipped_when_a_version_took_over_comes_to_the_other_only(label_studio: Any) -> None:
    project = labelstudio.create_project(label_studio.admin, "Oracle, skip and flip", CONFIG)["id"]
    labelstudio.import_tasks(label_studio.admin, project, task_data(3), CONFIG)
    first, second, third = [task["id"] for task in labelstudio.list_tasks(label_studio.admin, project)]
    scores = {task: place / 1e6 for place, task in enumerate((first, second, third), start=1)}
    one = Annotator(label_studio.admin, project, SCHEMA, "one")
    other = Annotator(label_studio.annotator, project, SCHEMA, "other")
    publish(label_studio, project, "v1", {first: 1e-6})
    task = one.next_task()
    assert task is not None and task["id"] == first
    one.skip(task)
    publish(label_studio, project, "v2", scores)
    for annotator, expected in ((one, second), (other, first), (one, third)):
        task = annotator.next_task()
        assert task is not None and task["id"] == expected
        annotator.submit(task, {"bom": ("benign",)}, 1.0)
    visits = one.visits + other.visits
    assert served_order_spearman(visits, {"v2": scores}) == {"v2": 1.0}
    assert served_order_spearman(visits[1:], {"v2": scores})["v2"] < 1.0  # had nobody skipped it


def test_an_oracle_that_knows_nothing_skips_until_nothing_is_left(label_studio: Any) -> None:
    made = labelstudio.create_project(label_studio.admin, "Oracle, unknown", CONFIG)
    labelstudio.import_tasks(label_studio.admin, made["id"], task_data(2), CONFIG)
    admin = Annotator(label_studio.admin, made["id"], SCHEMA, "admin")
    finished = list(take_turns([admin], {"0.png": {"bom": ("benign",)}}, 5))
    assert [visit.skipped for visit in finished] == [False, True]
    assert [visit.version for visit in finished] == [None, None]
    assert admin.next_task() is None


def test_preparing_twice_changes_nothing(label_studio: Any, project: dict[str, Any]) -> None:
    admin = label_studio.admin
    again = labelstudio.create_project(admin, "Oracle", CONFIG)
    assert again["id"] == project["id"]
    assert labelstudio.import_tasks(admin, project["id"], task_data(20), CONFIG) == 0
    tasks = labelstudio.list_tasks(admin, project["id"])
    assert [task["data"]["file"] for task in tasks] == [f"{i}.png" for i in range(20)]
    assert all(task["data"]["remark"] == "" for task in tasks)

    images = label_studio.document_root / "images"
    images.mkdir()
    (images / "a b&c.png").write_bytes(b"pixels")
    for _ in range(2):
        labelstudio.register_local_storage(admin, project["id"], images)
    storages = call(admin, "GET", "/api/storages/localfiles", params={"project": project["id"]})
    assert [storage["path"] for storage in storages] == [str(images.resolve())]
    assert admin.get("/data/local-files/?d=images/a%20b%26c.png").content == b"pixels"

    kept = Credentials.in_folder(label_studio.folder)
    assert kept == label_studio.credentials
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert labelstudio.personal_access_token(admin, kept) == label_studio.token
    assert labelstudio.sign_up(admin, kept.annotator).get("/api/current-user/whoami").json()["email"]


def test_a_changed_label_config_reaches_the_project(label_studio: Any) -> None:
    made = labelstudio.create_project(label_studio.admin, "Changed", CONFIG)
    changed = CONFIG.replace('<Choice value="punctate"/>', '<Choice value="punctate"/><Choice value="rim"/>')
    again = labelstudio.create_project(label_studio.admin, "Changed", changed)
    assert (again["id"], again["label_config"]) == (made["id"], changed)
    with pytest.raises(LabelStudioError, match="PATCH /api/projects"):
        labelstudio.create_project(label_studio.admin, "Changed", "<View><Choices/></View>")


def test_refusals_say_what_to_do(label_studio: Any, tmp_path: Path) -> None:
    with pytest.raises(LabelStudioError, match=r"refuses the login of nobody@example\.com"):
        labelstudio.session(label_studio.url, Account("nobody@example.com", "wrong password"))
    forgetful = Credentials.in_folder(tmp_path)
    with pytest.raises(LabelStudioError, match="Revoke it there"):
        labelstudio.personal_access_token(label_studio.admin, forgetful)
    with pytest.raises(LabelStudioError, match=r"POST /api/dm/actions: 404"):
        Annotator(label_studio.admin, 999_999, SCHEMA, "admin").next_task()


def test_answer() -> None:
    assert answer({"bom": ("benign",), "foci": ()}) == {"bom": ("benign",), "foci": ()}
    assert answer({"foci": ()}) is None
    assert answer({}) is None


def test_results_are_those_that_the_screen_submits() -> None:
    """Seen in Chromium: a changed choice keeps the region's id and score, and an unticked one is not sent."""
    shown = {
        "id": 5,
        "result": [
            encode_labels(SCHEMA, {"bom": ("malignant",)})[0] | {"id": "a", "score": 0.8},
            encode_labels(SCHEMA, {"foci": ("none",)})[0] | {"id": "b"},
            encode_why(SCHEMA, "They disagree.")[0] | {"id": "c"},
        ],
    }
    kept, changed, why = annotated(SCHEMA, shown, {"bom": ("malignant",), "foci": ("punctate",)})
    assert (kept["id"], kept["score"], kept["origin"]) == ("a", 0.8, "prediction")
    assert (changed["id"], changed["value"]) == ("b", {"choices": ["punctate"]})
    assert changed["origin"] == "prediction-changed"
    assert (why["id"], why["origin"]) == ("c", "prediction")
    unticked = annotated(SCHEMA, shown, {"bom": ("malignant",)})
    assert [region["from_name"] for region in unticked] == ["bom", "why"]
    (own,) = annotated(SCHEMA, None, {"foci": ("none",)})
    assert (own["origin"], own["value"]) == ("manual", {"choices": ["none"]})


def visit(task: int, served: float, finished: float | None, who: str = "a", **more: Any) -> Visit:
    return Visit(who, task, served, more.pop("version", VERSION), 1, 0.5, finished, **more)


@given(st.permutations(range(12)), st.integers(2, 12))
def test_spearman_is_that_of_scipy_over_first_servings(order: list[int], n: int) -> None:
    scores = {task: task / 1e6 for task in range(12)}
    visits = [visit(task, float(at), at + 0.5) for at, task in enumerate(order[:n])]
    visits += [visit(order[0], 100.0, 101.0), visit(order[1], -5.0, -4.0, version="v0"), visit(77, 0.1, 0.2)]
    random.Random(n).shuffle(visits)
    found = served_order_spearman(visits, {VERSION: scores, "v0": {order[1]: 1e-6}})
    assert found == {VERSION: pytest.approx(spearmanr(range(n), order[:n]).statistic), "v0": 1.0}


def test_the_first_task_of_a_version_may_be_the_choice_of_the_order_before() -> None:
    """Seen where a request was under way while the version took over: the task of the one, the prediction of the
    other.
    """
    order = {task: task / 1e6 for task in (10, 20, 30, 40)}

    def judged(served: list[int], former: list[int], earlier: list[int]) -> float:
        visits = [visit(task, -1.0, -0.5, version="v0") for task in earlier]
        visits += [visit(task, float(at), at + 0.5) for at, task in enumerate(served)]
        return served_order_spearman(visits, {"v0": dict.fromkeys(former, 0.5), VERSION: order})[VERSION]

    assert judged([30, 10, 20, 40], [1, 30], [1]) == 1.0
    assert judged([30, 10, 20, 40], [1, 20], [1]) < 1.0  # the order before cannot have chosen it
    assert judged([30, 10, 20, 40], [1, 30], []) < 1.0  # there was no order before
    assert judged([10, 30, 20, 40], [1, 10, 30], [1]) < 1.0  # not the first


def test_duplicates() -> None:
    finished = visit(1, 0.0, 1.0)
    assert duplicates([finished, visit(1, 2.0, 3.0, "b")]) != []  # it had its annotation
    assert duplicates([finished, visit(1, 0.5, 3.0, "b")]) != []  # another held it
    assert duplicates([visit(1, 0.0, None), visit(1, 9.0, None, "b")]) != []  # another still holds it
    assert duplicates([visit(1, 0.0, 1.0, skipped=True), visit(1, 2.0, 3.0, "b")]) == []
    assert duplicates([visit(1, 0.0, None), visit(1, 9.0, 10.0)]) == []  # a lock brings its holder the same task
    assert duplicates([finished, visit(2, 0.5, 3.0, "b")]) == []
    late = visit(1, 5.0, 6.0)
    assert duplicates([late, finished]) == [late]


def _annotations(admin: httpx.Client, visits: list[Visit]) -> list[dict[str, Any]]:
    return [call(admin, "GET", f"/api/annotations/{visit.annotation}") for visit in visits]
