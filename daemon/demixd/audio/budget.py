"""The memory that may hold decoded sound. No NumPy here: a worker has its budget before it loads anything."""

import threading


class Budget:
    """Bytes of memory for the sound of all songs in flight. Threads may share it."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._lock = threading.Lock()

    def resize(self, size: int) -> None:
        """Allow so many bytes in all from now on; what is taken stays taken."""
        with self._lock:
            self._free += size - self._size
            self._size = size

    def take(self, count: int) -> bool:
        """Take `count` bytes; False, and nothing is taken, where there are fewer."""
        with self._lock:
            if count > self._free:
                return False
            self._free -= count
            return True

    def take_share(self, parts: int) -> int:
        """Take one of so many parts of what is left: how many bytes."""
        with self._lock:
            count = max(0, self._free // parts)
            self._free -= count
            return count

    def give(self, count: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._free += count
