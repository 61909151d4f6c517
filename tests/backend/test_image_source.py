"""What the settings say of images reaches those who fetch them."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from backend.image_source import open_images
from backend.settings import Settings
from tasks.client import Client
from tasks.images import ImageUnavailable


def test_settings_bound_where_images_come_from(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path, image_hosts="images.example, 127.0.0.1", image_private_networks="10.0.0.0/8"
    )
    client = Client("http://127.0.0.1:9", "token")
    images = open_images(settings, client)
    for url, reason in (
        ("http://other.example/a.png", "SECOND_LOOK_IMAGE_HOSTS"),
        ("http://127.0.0.1:10/a.png", "SECOND_LOOK_IMAGE_PRIVATE_NETWORKS"),
    ):
        with pytest.raises(ImageUnavailable, match=reason):
            images.fetch(url, 1)
    images.close()
    client.close()


@pytest.mark.parametrize(
    ("name", "value"), [("image_hosts", "https://images.example"), ("image_private_networks", "10.0.0.1/8")]
)
def test_what_is_no_host_or_network_is_refused_at_the_start(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}(.|\n)*{value}"):
        Settings(**{name: value})
