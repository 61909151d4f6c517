import pytest

from backend.learning.config import LearningConfig


@pytest.mark.parametrize(
    ("settings", "named"), [({"mode": "thawed"}, "mode"), ({"folds": 1}, "folds"), ({"epochs": 0}, "epochs")]
)
def test_settings_that_cannot_work_are_named(settings: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LearningConfig(**settings)
