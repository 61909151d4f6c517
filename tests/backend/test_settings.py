from pathlib import Path

import pytest

from backend.settings import Settings


def test_a_project_tunes_what_is_its_own(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, password="secret", batch_size=100)
    tuned = settings.tuned({"batch_size": 7, "preset": "document", "k": 1, "password": "changed", "host": "0.0.0.0"})
    assert (tuned.batch_size, tuned.preset) == (7, "document")
    assert tuned.password.get_secret_value() == "secret" and tuned.host == "127.0.0.1"
    assert settings.batch_size == 100
    assert settings.tuned({"k": 1}) is settings


@pytest.mark.parametrize("params", [{"batch_size": 0}, {"batch_size": "many"}, {"preset": "best"}, {"head_hours": -1}])
def test_a_value_that_is_not_allowed_is_named(params: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        Settings().tuned(params)


@pytest.mark.parametrize(
    ("host", "beyond"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("10.0.0.5", True), ("box", True)],
)
def test_what_counts_as_beyond_this_machine(host: str, beyond: bool) -> None:
    assert Settings(host=host).listens_beyond_loopback() == beyond


def test_secrets_do_not_show(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, password="hidden-word", label_studio_token="hidden-token")
    assert "hidden" not in repr(settings) and "hidden" not in settings.model_dump_json()
