"""Locks that no kill leaves behind."""

import contextlib
import fcntl
import os
import pathlib
import sys
from collections.abc import Iterator

from fex_jax import checks


@contextlib.contextmanager
def hold(path: pathlib.Path, busy: str) -> Iterator[None]:
    """Holds a file, which the kernel releases when the process ends, however it ends.

    Args:
      path: the file, which holds the number of the process.
      busy: what its holder does, for the error: "process 12 is …".

    Raises:
      ValueError: another process holds it.
      OSError: the file cannot be written, or the disk gets full while it is held.
    """
    with checks.room(path.parent), open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(f"process {file.read().strip() or '?'} {busy}") from None
        except OSError as error:
            print(f"WARNING: {path.parent} cannot be locked ({error})", file=sys.stderr)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
