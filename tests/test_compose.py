"""The compose files and the Dockerfile, as far as they can be judged without a container engine.

The schema is that of the compose specification (compose-spec/compose-spec, commit 170098b, Apache-2.0).
"""

import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from django.core.validators import URLValidator
from sqlalchemy import make_url
from typer.main import get_command

from backend.auth import check_listen
from backend.cli import app
from backend.settings import Settings

ROOT = Path(__file__).parents[1]
FILES = ("docker-compose.yml", "docker-compose.external.yml")
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<rest>[^}]*))?\}")
SECRET = re.compile("PASSWORD|SECRET|TOKEN|AUTH")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def environment(service: dict[str, Any]) -> dict[str, str]:
    return service.get("environment", {})


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(params=FILES)
def services(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(request.param)["services"]
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_file_follows_the_specification(name: str) -> None:
    schema = json.loads((ROOT / "tests" / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(read(name))


@pytest.mark.parametrize("name", FILES)
def test_every_volume_is_declared_and_used(name: str) -> None:
    content = read(name)
    used = {volume.split(":")[0] for service in content["services"].values() for volume in service.get("volumes", [])}
    assert used == set(content["volumes"])


def test_what_both_files_hold_is_the_same_but_for_addresses() -> None:
    whole, outer = (read(name)["services"] for name in FILES)
    assert (
        set(outer)
        == {"database", "redis", "backend", "worker"}
        == set(whole)
        - {
            "label-studio",
            "label-studio-database",
        }
    )
    assert (whole["database"], whole["redis"]) == (outer["database"], outer["redis"])
    for name in ("backend", "worker"):
        ours, theirs = (dict(file[name], environment=None, ports=None) for file in (whole, outer))
        assert ours == theirs
        differ = {"LABEL_STUDIO_URL", "LABEL_STUDIO_PUBLIC_URL", "PUBLIC_URL", "LABEL_STUDIO_TOKEN", "TASK_LOCK_HOURS"}
        assert {key for key, _ in environment(whole[name]).items() ^ environment(outer[name]).items()} == {
            f"SECOND_LOOK_{setting}" for setting in differ
        }


def test_everything_tells_its_health_and_is_waited_for(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert service["restart"] == "unless-stopped"
        for other, condition in service.get("depends_on", {}).items():
            assert other in services and condition == {"condition": "service_healthy"}
    assert set(services["worker"]["depends_on"]) == set(services["backend"]["depends_on"]) == {"database", "redis"}
    assert services["worker"]["volumes"] == services["backend"]["volumes"] == ["state:/state"]


@pytest.mark.parametrize("name", FILES)
def test_no_secret_has_a_default(name: str) -> None:
    for service in read(name)["services"].values():
        for key, value in environment(service).items():
            if SECRET.search(key):
                found = VARIABLE.fullmatch(value)
                assert found and (found["kind"] == "?" or not found["rest"]), f"{key} is not left to the admin"
            if "@" in value:
                assert VARIABLE.search(make_url(value).password or "" if "postgresql" in value else value)
    text = (ROOT / name).read_text()
    names = {found["name"] for found in VARIABLE.finditer(text)}
    required = {found["name"] for found in VARIABLE.finditer(text) if found["kind"] == "?" and found["rest"]}
    assert names <= set(example()), "the example of .env lacks these"
    assert all(not example()[variable] for variable in names if SECRET.search(variable))
    assert {found["name"] for found in VARIABLE.finditer(text) if found["kind"] == "?"} == required  # each says what


def test_the_example_names_nothing_else() -> None:
    text = "".join((ROOT / name).read_text() for name in FILES)
    assert {found["name"] for found in VARIABLE.finditer(text)} == set(example())


def test_our_services_start_with_these_settings(services: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Filled in as an admin would, the variables are settings that the backend accepts."""
    given = {name: value or f"{name.lower().replace('_', '-')}-0123456789" for name, value in example().items()}
    for name in ("backend", "worker"):
        filled = {
            key: VARIABLE.sub(lambda found: given[found["name"]], str(value))
            for key, value in environment(services[name]).items()
        }
        own = {key.removeprefix("SECOND_LOOK_").lower(): value for key, value in filled.items()}
        assert set(own) <= set(Settings.model_fields)
        settings = Settings(**own, _env_file=None)
        check_listen(settings)
        assert make_url(settings.database).get_driver_name() == "psycopg"
        assert make_url(settings.database).host in services
        assert settings.redis_url.endswith("@redis:6379/0")
        assert services[name]["build"] == {"context": ".", "args": {"TORCH": "${TORCH:-cpu}"}}
        program, command = services[name]["command"]
        assert program == "second-look" and command in get_command(app).commands


def test_label_studio_takes_the_address_of_the_backend() -> None:
    backend = read("docker-compose.yml")["services"]["backend"]
    address = environment(backend)["SECOND_LOOK_PUBLIC_URL"]
    URLValidator()(address)
    assert [httpx.URL(address).host] == backend["networks"]["default"]["aliases"]


def test_label_studio_is_the_version_we_know() -> None:
    service = read("docker-compose.yml")["services"]["label-studio"]
    assert service["image"] == f"heartexlabs/label-studio:{version('label-studio')}"
    settings = environment(service)
    ours = environment(read("docker-compose.yml")["services"]["backend"])
    assert int(settings["TASK_LOCK_TTL"]) == 3600 * float(ours["SECOND_LOOK_TASK_LOCK_HOURS"])


def test_the_image_is_built_from_what_is_there_and_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines if line[:1].isalpha()]
    last = max(number for number, (step, _) in enumerate(steps) if step == "FROM")
    assert [user for step, user in steps[last:] if step == "USER"] == ["second-look"]
    assert json.loads(dict(steps)["CMD"]) == ["second-look", "serve"]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for step, rest in steps[:last] if step == "COPY" for name in shlex.split(rest)[:-1]} - {"."}
    assert copied <= kept and {"README.md", "label_config.xml", "backend", "tasks", "demo"} <= kept
    assert all((ROOT / name).exists() for name in kept)
    install = " ".join(rest for step, rest in steps if step == "RUN")
    assert "--extra postgresql --extra redis" in install and "--constraint requirements.lock" in install
