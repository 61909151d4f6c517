"""The doctor's checks as functions of facts: the machine, and what Label Studio does not show."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from backend.doctor import CHECKS, machine, order, server
from backend.doctor.findings import Unknown, carry_out, error
from backend.doctor.gather import gather
from backend.doctor.observed import BULK_FLAG, Facts, Machine, ProjectFacts, Serving, Stored
from backend.settings import Settings
from demo.ports import any_port
from tasks.tables import Project

HIDDEN = Unknown("not shown")
FINE = Machine(
    gpus=(),
    driver="",
    torch="2.15",
    torch_cuda=None,
    cuda_trouble="torch.cuda.is_available() is False",
    weights_trouble=None,
    state_dir_writable=True,
    disk_free=10**12,
)


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """Gathered without any Label Studio: nothing listens there."""
    url = f"http://127.0.0.1:{any_port()}"
    settings = Settings(state_dir=tmp_path, label_studio_url=url, label_studio_token="x.y.z", weights="scratch")
    return gather(settings, None)[0]


def said(check: Any, seen: Any) -> list[tuple[str, str]]:
    return [(fault.severity, fault.what) for fault in check(seen)]


def test_a_check_that_fails_costs_the_others_nothing() -> None:
    def broken(facts: Any) -> Any:
        raise KeyError("sampling")

    def blind(facts: Any) -> Any:
        return server.known(HIDDEN)

    checks = {"broken": broken, "blind": blind, "works": lambda facts: [error("what", "mend")]}
    found = {finding.check: finding for finding in carry_out(checks, None, 3)}
    assert [found[name].carried_out for name in checks] == [False, False, True]
    assert "KeyError: 'sampling'" in found["broken"].what
    assert found["blind"].what == "not checked: not shown"
    assert (found["works"].severity, found["works"].project) == ("error", 3)


def test_check_names_are_unique() -> None:
    assert len(set(CHECKS)) == len(CHECKS)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, None),  # no GPU, none wanted
        ({"gpus": ("/dev/nvidia0",), "torch_cuda": "13.0", "cuda_trouble": None}, None),
        ({"gpus": ("/dev/nvidia0",)}, "a build for CPUs"),
        (
            {
                "gpus": ("/dev/nvidia0", "/dev/nvidia1"),
                "torch_cuda": "13.0",
                "driver": "NVRM version: 470.42",
                "cuda_trouble": "The NVIDIA driver on your system is too old (found version 11040).",
            },
            "too old (found version 11040). (built for CUDA 13.0; driver: NVRM version: 470.42)",
        ),
        ({"gpus": ("nvidia-smi",), "torch_cuda": "13.0", "cuda_trouble": "no kernel image"}, "driver: none loaded"),
    ],
)
def test_gpu(facts: Facts, seen: dict[str, Any], words: str | None) -> None:
    found = said(machine.gpu, replace(facts, machine=replace(FINE, **seen)))
    assert [(severity, words in what) for severity, what in found] == ([] if words is None else [("warning", True)])


def test_disk(facts: Facts) -> None:
    def found(**seen: Any) -> list[str]:
        return [severity for severity, _ in said(machine.disk, replace(facts, machine=replace(FINE, **seen)))]

    assert found() == []
    assert found(disk_free=5 * 10**9) == ["warning"]
    assert found(disk_free=10**9) == ["error"]
    assert found(state_dir_writable=False) == ["error"]


def test_weights(facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{any_port()}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def found(**changes: Any) -> list[tuple[str, str]]:
        settings = facts.settings.model_copy(update=changes)
        return said(machine.weights, replace(facts, settings=settings, machine=machine.observe(settings)))

    assert found() == []
    ((severity, what),) = found(weights="hub", backbone="resnet10t")
    assert severity == "warning"
    assert "from scratch" in what
    assert "cannot be reached" in what
    ((severity, what),) = found(weights=str(tmp_path / "none.safetensors"))
    assert severity == "error"
    (tmp_path / "some.safetensors").touch()
    assert found(weights=str(tmp_path / "some.safetensors")) == []
    assert "no backbone called 'resnot'" in found(weights="hub", backbone="resnot")[0][1]


def test_the_task_lock_where_label_studio_does_not_show_it(facts: Facts) -> None:
    def found(hours: float, members: int) -> list[str]:
        settings = facts.settings.model_copy(update={"task_lock_hours": hours})
        seen = replace(facts, settings=settings, server={}, members=members)
        return [severity for severity, _ in said(server.task_lock, seen)]

    assert found(24.0, 1) == []  # nobody else is kept from anything
    assert found(24.0, 3) == ["warning"]
    assert found(0.5, 3) == []


def project(facts: Facts, **seen: Any) -> ProjectFacts:
    unseen = dict.fromkeys(("stored", "remote", "ml_backends", "webhooks", "model_versions", "wants_refill"), HIDDEN)
    return ProjectFacts(**{"id": 1, "backend": facts, "connection": facts.connection, **unseen, **seen})


def test_the_slow_import_grows_with_the_project(facts: Facts) -> None:
    def found(tasks: int, flags: Any) -> list[tuple[str, str]]:
        return said(server.bulk_import, project(replace(facts, flags=flags), remote={"task_number": tasks}))

    assert found(120_000, {BULK_FLAG: True}) == []
    assert found(1_000, {}) == []
    assert "some 110 s" in found(120_000, {})[0][1]
    assert "cannot be seen" in found(120_000, HIDDEN)[0][1]


@given(st.lists(st.integers(0, 50), unique=True, max_size=20), st.integers(0, 5))
def test_overtaking_against_brute_force(ranks: list[int], allowed: int) -> None:
    pairs = [(i, j) for i in range(len(ranks)) for j in range(i + 1, len(ranks)) if ranks[j] < ranks[i]]
    expected = sum(sum(i == place for i, _ in pairs) > allowed for place in range(len(ranks)))
    assert order.overtaking(ranks, allowed) == expected


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_annotators_who_hold_a_task_each_overtake_no_more_than_the_others(people: int, seed: int) -> None:
    rng, waiting, held, finished = np.random.default_rng(seed), list(range(30)), [], []
    while waiting or held:
        while waiting and len(held) < people:
            held.append(waiting.pop(0))  # the first that nobody holds
        finished.append(held.pop(rng.integers(len(held))))
    assert order.overtaking(finished, people - 1) == 0


def test_a_random_order_is_told_from_a_published_one(facts: Facts) -> None:
    def found(ranks: list[int]) -> list[tuple[str, str]]:
        servings = tuple(
            Serving(task=rank, by=place % 2, at=float(place), version=1, rank=rank, head_open=True)
            for place, rank in enumerate(ranks)
        )
        counts = dict.fromkeys(("tasks", "pushed", "waiting", "active", "annotators", "images_broken"), 0)
        stored = Stored(row=Project(id=1), job=None, images_failed=(), servings=servings, **counts)
        return said(order.served_order, project(facts, stored=stored))

    rng = np.random.default_rng(0)
    assert found(list(range(40))) == []
    assert found(rng.permutation(10).tolist()) == []  # too few to judge
    missed = sum(not found(rng.permutation(300)[:40].tolist()) for _ in range(200))
    assert missed == 0
    late = [*range(1, 30), 0]  # somebody left one open over lunch
    assert found(late) == []


def test_without_label_studio_every_other_check_is_carried_out(facts: Facts) -> None:
    assert isinstance(facts.address, Unknown)
    assert facts.whoami == Unknown("Label Studio does not answer, or not to our token")
    assert facts.store == 0
    assert not isinstance(facts.machine, Unknown)
