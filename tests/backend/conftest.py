"""A project with a finished version, made from files and rows as a cycle leaves them."""

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
        digests = np.array([f"digest{number}" for number in ids])
        scored: Scored = score(ids, digests, [head], blocks, recorded, "entropy")
        scored.save(folder / "predictions.npz")
        save_json(folder / "backbones.json", {"number": 1, "weights": "scratch"})
        save_json(folder / "model.json", {"heads": ["bom"] if learnt else []})
        points = rng.normal(size=(COUNT, 8)).astype(np.float32)
        save_arrays(self.registry.backbones(1, 1) / "embeddings-0-0000.npz", {"digests": digests, "values": points})

    def extend(self, count: int, person: int | None = None) -> int:
        return plan.extend_head(self.store, self.registry, self.settings, 1, 1, count, person)

    def published(self) -> list[Published]:
        with self.store.begin() as session:
            return sorted(session.query(Published).all(), key=lambda row: row.rank)

    def annotate(self, task: int, origin: str = "person", by: int | None = None, at: str = "2026-01-02") -> None:
        with self.store.begin() as session:
            row = session.get_one(Task, (1, task))
            row.is_labeled, row.annotations = True, 1
            session.add(
                Annotation(
                    project_id=1,
                    id=task,
                    task_id=task,
                    completed_by=by,
                    created_at=at,
                    updated_at="2026-01-02",
                    was_cancelled=False,
                    result=[],
                    labels={"bom": ["malignant"]},
                    origin=origin,
                )
            )


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
