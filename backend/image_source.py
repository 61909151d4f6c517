"""The images of the Label Studio that the settings name, within the bounds that they set."""

from backend.settings import Settings
from tasks.client import Client
from tasks.image_cache import ImageCache
from tasks.images import Images


def open_images(settings: Settings, client: Client) -> Images:
    """Images fetched with `client`'s authority; close them before it."""
    cache = ImageCache(settings.state_dir / "images", int(settings.image_cache_gb * 1e9))
    limit = settings.max_image_mb * 1_000_000
    return Images(
        client.base_url,
        client.http,
        cache,
        limit,
        settings.image_policy,
        settings.ca_file,
        settings.label_studio_public_url,
    )
