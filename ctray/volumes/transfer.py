"""Counter of the bytes that a volume fetches from its store."""

from __future__ import annotations

import threading


class Transfer:
    """Sum of the bytes fetched for one volume; safe in threads."""

    def __init__(self, bytes_read: int = 0) -> None:
        self.bytes_read = bytes_read
        self._lock = threading.Lock()

    def add(self, num_bytes: int) -> None:
        """Count `num_bytes` more."""
        with self._lock:
            self.bytes_read += num_bytes
