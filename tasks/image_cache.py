"""A bounded cache of downloaded images on disk, shared by threads and processes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

STALE_SECONDS = 3600.0
TEMPORARY = ".part"


class ImageCache:
    """Bytes by URL in `folder`, at most `max_bytes` of them; what was used longest ago goes first.

    Threads and processes may share the folder: a file appears whole or not at all. Each process counts what
    it writes itself and looks at the folder again after a sixteenth of the bound, so P processes may together
    pass the bound by (P - 1)/16 of it until the next look. A failing disk costs the caching, never the image.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._total: int | None = None
        self._unseen = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, url: str) -> Path:
        """Where the bytes of `url` are kept: its sha256, in 256 sub-folders."""
        key = hashlib.sha256(url.encode()).hexdigest()
        return self.folder / key[:2] / key

    def get(self, url: str) -> bytes | None:
        """The bytes kept for `url`, or None."""
        path = self.path(url)
        try:
            data = path.read_bytes()
            os.utime(path)  # the access time of a mount with relatime or noatime tells nothing
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("image cache not readable", error=str(error))
            return None
        return data or None

    def put(self, url: str, data: bytes) -> None:
        """Keep `data` for `url`, after removing as much as it takes to stay within the bound."""
        if len(data) > self.max_bytes:
            return
        try:
            with self._lock:  # also while writing, for another thread's look would not count what is under way
                self._make_room(len(data))
                self._write(self.path(url), data)
        except OSError as error:
            log.warning("image not kept in the cache", error=str(error))

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=TEMPORARY, delete=False) as temporary:
            try:
                temporary.write(data)
                temporary.close()
                Path(temporary.name).replace(path)
            except BaseException:
                Path(temporary.name).unlink(missing_ok=True)
                raise

    def _make_room(self, size: int) -> None:
        self._unseen += size
        if self._total is None or self._unseen > self.max_bytes // 16 or self._total + size > self.max_bytes:
            self._total = self._evict(self.max_bytes - size)
            self._unseen = size
        self._total += size

    def _evict(self, bound: int) -> int:
        """Remove the oldest files until `bound` holds, some more to spare the next looks; count the rest."""
        kept: list[tuple[int, int, Path]] = []
        for entry in self.folder.glob("??/*"):
            try:
                status = entry.stat()
                if entry.suffix == TEMPORARY and time.time() - status.st_mtime > STALE_SECONDS:
                    entry.unlink()  # its writer was killed
                    continue
            except FileNotFoundError:
                continue  # another process was quicker
            kept.append((status.st_mtime_ns, status.st_size, entry))
        total = sum(size for _, size, _ in kept)
        if total <= bound:
            return total
        for _, size, entry in sorted(kept, key=lambda item: item[0]):
            if total <= bound - self.max_bytes // 16:
                break
            if entry.suffix != TEMPORARY:
                entry.unlink(missing_ok=True)
                total -= size
        return total
