"""What is shown while bytes are hashed and written."""

import sys
import time


class _Line:
    """One line of standard error that is written over and over."""

    def __init__(self, total, what):
        self._total, self._what, self._done, self._shown = max(total, 1), what, 0, 0.0
        self.update(0)

    def update(self, size):
        self._done += size
        now = time.monotonic()
        if now - self._shown < 0.1 and self._done < self._total:
            return
        self._shown = now
        sys.stderr.write(f"\r{self._what} {min(self._done / self._total, 1):4.0%} of {self._total / 1e6:.1f} MB")
        sys.stderr.flush()

    def close(self):
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()


class _Silent:
    def update(self, size):
        pass

    def close(self):
        pass


def _make(total, what):
    if not sys.stderr.isatty():
        return _Silent()
    try:
        from tqdm import tqdm
    except ImportError:
        return _Line(total, what)
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, leave=False, file=sys.stderr)


class Progress:
    """with Progress(bytes, "writing") as bar: bar.update(some)."""

    def __init__(self, total, what):
        self._bar = _make(total, what)

    def update(self, size):
        self._bar.update(size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
