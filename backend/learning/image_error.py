"""Why an image file cannot be used."""


class ImageError(ValueError):
    """The file cannot be used as an image; the message says why, for the admin's `status`."""
