"""Compiled programs that a command finds again."""

import os
import pathlib
import subprocess
import sys

SCRIPT = """
import jax, jax.numpy as jnp
from fex_jax import compiled
compiled.keep()
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3))).block_until_ready()
print("/jax/compilation_cache/cache_hits" in found)
"""


def says(**variables: str) -> str:
    """What another process prints: whether its program was there."""
    given = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    given |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | variables
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, env=given
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip()


def programs(home: pathlib.Path) -> list[pathlib.Path]:
    return sorted(home.glob("fex_jax/compiled/*/*-cache"))


def test_a_second_command_finds_what_the_first_compiled(tmp_path: pathlib.Path):
    """Breaks if nothing is kept, if a program that a kill left in part stays, for JAX then fails
    at every later one, or if a variable of JAX no longer has the last word."""
    assert says(XDG_CACHE_HOME=str(tmp_path)) == "False"
    kept = programs(tmp_path)
    assert kept
    part = kept[0].with_name("jit_killed-0123-cache")
    part.write_bytes(b"a part")
    assert says(XDG_CACHE_HOME=str(tmp_path)) == "True"
    assert programs(tmp_path) == kept and not part.exists()

    own = tmp_path / "own"
    assert says(XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR=str(own)) == "False"
    assert list(own.glob("*-cache")) and programs(tmp_path) == kept


def test_without_a_place_nothing_is_kept(tmp_path: pathlib.Path):
    """Breaks if a command fails, or warns, where its cache cannot be written."""
    file = tmp_path / "file"
    file.write_text("")
    assert says(XDG_CACHE_HOME=str(file)) == "False"
