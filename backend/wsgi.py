"""The entry for gunicorn: `gunicorn backend.wsgi:app`, with the settings of the environment."""

from backend import logs
from backend.app import create_app
from backend.auth import check_listen
from backend.settings import settings

_settings = settings()
logs.configure(
    _settings.log_format,
    secrets=[_settings.password.get_secret_value(), _settings.label_studio_token.get_secret_value()],
)
check_listen(_settings)
app = create_app(_settings)
