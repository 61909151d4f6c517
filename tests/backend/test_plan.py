"""The head of the queue, laid out from a version's files and the store."""

from pathlib import Path

import numpy as np
import pytest

from backend import plan
from backend.registry import Registry, save_arrays, save_json
from backend.scored import Scored, score
from backend.settings import Settings
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Project, Published, Task, Version

CONFIG = """<View><Image name="image" value="$image" model_group="$patient"/>
<Choices name="bom" toName="image" model_current="$bom" model_positive="malignant" required="true">
<Choice value="benign"/><Choice value="malignant"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
COUNT = 120


class World:
    """A project of 120 tasks, the last 20 of them in the hold-out, whose version 1 doubts the first ones most."""

    def __init__(self, folder: Path, learnt: bool = True) -> None:
        self.store = Store.open(f"sqlite:///{folder / 'store.db'}")
        self.registry = Registry(folder)
        self.settings = Settings(state_dir=folder, batch_size=10)
        self.store.register_project(1, CONFIG)
        head = parse_label_config(CONFIG).heads[0]
        rng = np.random.default_rng(0)
        ids = np.arange(1, COUNT + 1)
        with self.store.begin() as session:
            for number in ids.tolist():
                session.add(
                    Task(
                        project_id=1,
                        id=number,
                        data={"image": f"{number}.png", "bom": "benign"},
                        image=f"{number}.png",
                        group=f"p{number}",
                        fold=-1 if number > 100 else number % 5,
                        current={"bom": ["benign"]},
                        pixels=f"digest{number}",
                        updated_at="2026-01-01",
                    )
                )
            session.add(
                Version(project_id=1, number=1, created_at=0.0, seconds=1.0, schema="", labels=COUNT, metrics={})
            )
            session.get_one(Project, 1).version = 1
        malignant = np.linspace(0.99, 0.01, COUNT, dtype=np.float32)
        members = {"bom": np.stack([1 - malignant, malignant], axis=1)[None]}
        recorded = {"bom": np.tile(np.array([1, 0], dtype=np.float32), (COUNT, 1))}
        blocks = [(np.arange(COUNT), members)] if learnt else []
        folder = self.registry.version(1, 1)
        scored: Scored = score(ids, [head], blocks, recorded, "entropy", 0.2)
        scored.save(folder / "predictions.npz")
        save_json(folder / "backbones.json", {"number": 1, "weights": "scratch"})
        digests = np.array([f"digest{number}" for number in ids])
        points = rng.normal(size=(COUNT, 8)).astype(np.float32)
        save_arrays(self.registry.backbones(1, 1) / "embeddings-0-0000.npz", {"digests": digests, "values": points})

    def extend(self, count: int) -> int:
        return plan.extend_head(self.store, self.registry, self.settings, 1, 1, count)

    def published(self) -> list[Published]:
        with self.store.begin() as session:
            return sorted(session.query(Published).all(), key=lambda row: row.rank)

    def annotate(self, task: int) -> None:
        with self.store.begin() as session:
            session.get_one(Task, (1, task)).is_labeled = True
            session.add(
                Annotation(
                    project_id=1,
                    id=task,
                    task_id=task,
                    created_at="2026-01-02",
                    updated_at="2026-01-02",
                    was_cancelled=False,
                    result=[],
                    labels={"bom": ["malignant"]},
                    origin="person",
                )
            )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_ranked_tasks_come_in_the_order_of_their_score(world: World) -> None:
    world.extend(60)
    ranked = [row for row in world.published() if row.kind == "ranked"]
    assert len(ranked) > 30
    assert [row.score for row in ranked] == sorted((row.score for row in ranked), reverse=True)
    assert {row.task_id for row in ranked[:10]} <= set(range(1, 25))  # the model contradicts the record most there


def test_every_slot_kind_takes_part_and_shows_what_it_should(world: World) -> None:
    world.extend(100)
    rows = world.published()
    assert {row.kind for row in rows} == {"ranked", "control", "blind", "holdout"}
    for row in rows:
        shown = {result["from_name"] for result in row.shown}
        blind = row.kind in ("blind", "holdout")
        assert shown == ({"why"} if blind else {"why", "bom"})
        assert ("Model:" not in row.why) == blind
        assert "Recorded: benign" in row.why
        assert (row.task_id > 100) == (row.kind == "holdout")
        assert (row.score is None) == (row.kind != "ranked")


def test_a_refill_continues_the_order_and_repeats_nothing(world: World) -> None:
    world.extend(30)
    first = world.published()
    world.extend(30)
    rows = world.published()
    assert [row.task_id for row in rows[:30]] == [row.task_id for row in first]
    assert [row.rank for row in rows] == list(range(60))
    assert len({row.task_id for row in rows}) == 60


def test_labelled_tasks_are_left_out_and_named_as_most_like(world: World) -> None:
    for task in range(1, 21):
        world.annotate(task)
    world.extend(COUNT)
    rows = world.published()
    assert not {row.task_id for row in rows} & set(range(1, 21))
    ranked = [row for row in rows if row.kind == "ranked"]
    assert all("Most like task" in row.why for row in ranked)


def test_the_queue_ends_where_the_tasks_end(world: World) -> None:
    assert world.extend(10 * COUNT) <= COUNT
    assert world.extend(10) == 0 or len(world.published()) <= COUNT


def test_with_nothing_learnt_coverage_alone_orders_and_nothing_is_suggested(tmp_path: Path) -> None:
    world = World(tmp_path, learnt=False)
    world.extend(40)
    rows = world.published()
    assert len(rows) == 40
    assert all({result["from_name"] for result in row.shown} == {"why"} for row in rows)


def test_preview_shows_what_is_published_and_what_would_follow(world: World) -> None:
    world.extend(10)
    with world.store.begin() as session:
        session.get_one(Project, 1).published = 1
    rows = plan.preview(world.store, world.registry, world.settings, 1, 30)
    assert [row["place"] for row in rows] == list(range(1, 31))
    assert [row["published"] for row in rows] == [True] * 10 + [False] * 20
    assert len(world.published()) == 10  # it only looks
    assert all(0 <= row["uncertainty"] <= 1 and 0 <= row["disagreement"] <= 1 for row in rows)


def test_the_same_state_gives_the_same_head(tmp_path: Path) -> None:
    heads = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        world.extend(50)
        heads.append([(row.task_id, row.kind) for row in world.published()])
    assert heads[0] == heads[1]
