"""What the server counts, as Prometheus reads it."""

import collections
import threading

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """Requests by address and status, their seconds, and things that were explained."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: collections.Counter[tuple[str, int]] = collections.Counter()
        self._within = [0] * len(_BOUNDS)
        self._seconds, self._count, self._things = 0.0, 0, 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """One was answered."""
        with self._lock:
            self._requests[path, status] += 1
            self._seconds, self._count = self._seconds + seconds, self._count + 1
            for i, bound in enumerate(_BOUNDS):
                self._within[i] += seconds <= bound

    def explained(self, things: int) -> None:
        """So many things were."""
        with self._lock:
            self._things += things

    def text(self, batches: int, waiting: int) -> str:
        """All of it."""
        with self._lock:
            lines = ["# TYPE fex_requests_total counter"]
            lines += [
                f'fex_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self._requests.items())
            ]
            lines += ["# TYPE fex_request_seconds histogram"]
            lines += [
                f'fex_request_seconds_bucket{{le="{bound}"}} {count}'
                for bound, count in zip(
                    (*_BOUNDS, "+Inf"), (*self._within, self._count), strict=True
                )
            ]
            lines += [
                f"fex_request_seconds_sum {self._seconds}",
                f"fex_request_seconds_count {self._count}",
                "# TYPE fex_explained_total counter",
                f"fex_explained_total {self._things}",
                "# TYPE fex_batches_total counter",
                f"fex_batches_total {batches}",
                "# TYPE fex_waiting gauge",
                f"fex_waiting {waiting}",
            ]
        return "\n".join(lines) + "\n"
