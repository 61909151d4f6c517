"""Ranking at the size of the first project: 120,000 tasks, 7 heads, 1,280 features, a batch of 100."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from skactiveml.pool import k_greedy_center, uncertainty_scores

from bench import Result, compare
from tasks.ranking.hybrid import PRESETS, greedy, task_scores
from tasks.ranking.kmeans import directions
from tasks.ranking.uncertainty import uncertainty
from tasks.schema import Head

Floats = NDArray[np.float32]

TASKS, FEATURES, BATCH, REVIEWED = 120_000, 1280, 100, 2000
CLASSES = {"bom": 2, "tirads": 5, "composition": 4, "echogenicity": 4, "shape": 2, "margin": 4, "foci": 4}


def results(scale: float) -> Iterator[Result]:
    tasks = max(int(TASKS * scale), BATCH)
    rng = np.random.default_rng(0)
    yield from scoring(tasks, rng)
    embeddings = clustered(tasks, rng)
    yield from selection(embeddings, rng)


def scoring(tasks: int, rng: np.random.Generator) -> Iterator[Result]:
    members: dict[str, Floats] = {}
    targets: dict[str, Floats] = {}
    for name, classes in CLASSES.items():
        members[name] = rng.dirichlet(np.ones(classes), (1, tasks)).astype(np.float32)
        targets[name] = np.eye(classes, dtype=np.float32)[rng.integers(classes, size=tasks)]
    heads = [
        Head(name, "image", "single", tuple(map(str, range(n))), 1 / 7, name == "tirads", None, None, required=True)
        for name, n in CLASSES.items()
    ]
    size = f"{tasks} x {len(heads)} heads"
    yield compare(
        "entropy",
        size,
        lambda: [uncertainty("entropy", each, False) for each in members.values()],
        lambda: [uncertainty_scores(each[0], method="entropy") for each in members.values()],
        "scikit-activeml uncertainty_scores",
    )
    yield compare("entropy, disagreement and their weighted sums", size, lambda: task_scores(heads, members, targets))


def selection(embeddings: Floats, rng: np.random.Generator) -> Iterator[Result]:
    tasks = len(embeddings)
    size = f"{BATCH} of {tasks} x {FEATURES}"
    unsure = rng.beta(1, 4, tasks)
    wrong = np.where(rng.random(tasks) < 0.07, rng.random(tasks), 0)
    a, b, c = PRESETS["document"]
    base = (a * unsure + b * wrong).astype(np.float32)
    yield compare(
        "hybrid batch",
        size,
        lambda: greedy(base, embeddings, c, BATCH),
        lambda: one_product_a_pick(base, directions(embeddings), c, BATCH),
        "the same greedy in numpy, all rows brought up to date at each pick",
    )
    reviewed = embeddings[rng.permutation(tasks)[: min(REVIEWED, tasks // 2)]]
    yield compare(
        f"hybrid batch beside {len(reviewed)} reviewed", size, lambda: greedy(base, embeddings, c, BATCH, reviewed)
    )
    labels = np.full(tasks, np.nan)
    labels[0] = 0
    alone = np.where(np.isnan(labels), 0, -10).astype(np.float32)  # the one reviewed task is out of the running
    unit = directions(embeddings)
    yield compare(
        "diversity alone, nearest",
        size,
        lambda: greedy(alone, embeddings, 1.0, BATCH, embeddings[:1]),
        lambda: k_greedy_center(unit, labels, batch_size=BATCH, random_state=0),
        "scikit-activeml k_greedy_center (CoreSet)",
    )
    yield compare(
        "diversity alone, coverage", size, lambda: greedy(alone, embeddings, 1.0, BATCH, diversity="coverage")
    )


def one_product_a_pick(base: Floats, unit: Floats, gamma: float, batch: int) -> list[int]:
    """The plain exact greedy; unit: rows of length 1."""
    nearest, left = np.zeros(len(unit), dtype=np.float32), base.copy()
    order: list[int] = []
    for _ in range(batch):
        order.append(int((left + gamma * (1 - nearest)).argmax()))
        left[order[-1]] = -np.inf
        nearest = np.maximum(nearest, unit @ unit[order[-1]])
    return order


def clustered(tasks: int, rng: np.random.Generator) -> Floats:
    """Features as a network's last pooling gives them: none below 0, 300 kinds of image."""
    kinds = np.maximum(rng.standard_normal((300, FEATURES), dtype=np.float32), 0)
    embeddings = 0.7 * rng.standard_normal((tasks, FEATURES), dtype=np.float32)
    embeddings += kinds[rng.integers(300, size=tasks)]
    np.maximum(embeddings, 0, out=embeddings)
    return embeddings
