"""Compiled programs are kept between commands, in a folder that does not grow without end."""

import os
import pathlib
import zlib
from typing import Any

import filelock
import jax

_BYTES = 2**31


def keep() -> None:
    """Has JAX read compiled programs from, and write them to, `folder()`, 2 GiB at most.

    Those that were not read for longest go first. $JAX_COMPILATION_CACHE_DIR names another folder,
    JAX_ENABLE_COMPILATION_CACHE=0 forbids all. Where no folder can be written nothing is kept.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    try:
        where = folder()
        where.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(where / ".lockfile", timeout=5):  # as JAX locks it
            # JAX writes the time after the program: a process was killed between the two.
            for file in where.glob("*-cache"):
                if not file.with_name(file.name.removesuffix("-cache") + "-atime").is_file():
                    file.unlink()
    except (OSError, RuntimeError):  # no home, no room, no right; `Timeout` is an OSError
        return
    config.update("jax_compilation_cache_max_size", _BYTES)
    config.update("jax_compilation_cache_dir", str(where))


def folder() -> pathlib.Path:
    """fex_jax in $XDG_CACHE_HOME or ~/.cache, for this kind of CPU.

    JAX takes another CPU's program for its own, and homes are shared by machines of several kinds.

    Raises:
      RuntimeError: there is no home.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    caches = pathlib.Path(given) if given else pathlib.Path.home() / ".cache"
    return caches / "fex_jax" / "compiled" / f"{zlib.crc32(_cpu()):08x}"


def _cpu() -> bytes:
    """What sets a kind of CPU apart, on Linux; elsewhere homes are seldom shared."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return b""
    return next((line for line in lines if line.lower().startswith((b"flags", b"features"))), b"")
