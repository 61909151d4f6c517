"""What Label Studio waits for: /predict of 2,000 tasks, /health and /setup, beside a training that takes every core."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from flask.testing import FlaskClient

from backend.app import create_app
from backend.registry import Registry, save_json
from backend.scored import score
from backend.settings import Settings
from bench import Result, compare
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Project, Task, Version

TASKS, ASKED = 120_000, 2000
CONFIG = Path("label_config.xml").read_text()
# A learner that never rests: one process with as many threads as there are cores.
TRAINING = "import torch\na = torch.rand(2000, 2000)\nprint(flush=True)\nwhile True: a @ a"


def results(scale: float) -> Iterator[Result]:
    tasks = max(int(TASKS * scale), 20)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(state_dir=Path(folder), password="", label_studio_token="")
        rows = fill(settings, tasks)
        client = create_app(settings).test_client()
        asked = [{"id": row["id"], "data": row["data"], "project": 1} for row in rows[:ASKED]]
        size, body = f"{len(asked)} of {tasks} tasks", {"project": "1", "tasks": asked}
        yield compare("/predict", size, lambda: post(client, "/predict", body))
        command = [sys.executable, "-c", TRAINING]
        threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | threads) as training:
            assert training.stdout is not None
            training.stdout.readline()
            setup = {"project": "1", "schema": CONFIG, "extra_params": None}
            yield compare("/health during a training (limit 1 s)", "1 call", lambda: client.get("/health"))
            yield compare("/setup during a training (limit 3 s)", "1 call", lambda: post(client, "/setup", setup))
            yield compare("/predict during a training (limit 100 s)", size, lambda: post(client, "/predict", body))
            training.kill()


def post(client: FlaskClient, path: str, body: Mapping[str, object]) -> None:
    response = client.post(path, json=body)
    if response.status_code != 200:
        raise RuntimeError(f"{path} answered {response.status_code}: {response.get_data(as_text=True)}")


def fill(settings: Settings, tasks: int) -> list[dict[str, object]]:
    """A project with a version that knows all its tasks, as a cycle leaves them."""
    store, schema = Store.open(settings.database), parse_label_config(CONFIG)
    store.register_project(1, CONFIG, created_at="2026-01-01T00:00:00Z")
    ids = np.arange(1, tasks + 1)
    digests = np.array([f"{number:064x}" for number in ids])
    rows: list[dict[str, object]] = []
    for number, digest in zip(ids.tolist(), digests.tolist(), strict=True):
        image = f"{number}.png"
        data = {schema.image_field: image}
        rows.append({"id": number, "data": data, "project_id": 1, "image": image, "pixels": digest, "updated_at": ""})
    with store.begin() as session:
        session.bulk_insert_mappings(Task.__mapper__, rows)
        session.add(Version(project_id=1, number=1, created_at=0, seconds=1, schema="", labels=0, metrics={}))
        session.get_one(Project, 1).version = 1
    rng = np.random.default_rng(0)
    members = {h.name: rng.dirichlet(np.ones(len(h.classes)), (1, tasks)).astype(np.float32) for h in schema.heads}
    recorded = {h.name: np.full((tasks, len(h.classes)), np.nan, dtype=np.float32) for h in schema.heads}
    folder = Registry(settings.state_dir).version(1, 1)
    blocks = [(np.arange(tasks), members)]
    score(ids, digests, schema.heads, blocks, recorded, "entropy").save(folder / "predictions.npz")
    save_json(folder / "model.json", {"heads": [head.name for head in schema.heads]})
    return rows
