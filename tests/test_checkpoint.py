"""Checkpoints on real disks that are damaged, full, or filled by a run that diverged."""

import pathlib
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import checkpoint, updates


def make(step: int) -> updates.TrainState:
    params = {"w": jnp.full((40, 50), float(step)), "b": jnp.arange(3.0) + step}
    return updates.TrainState(params, {"m": jnp.full(3, -step)}, jnp.asarray(step, jnp.int32))


def wanted() -> updates.TrainState:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(lambda: make(0)),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> pathlib.Path:
    """Checkpoints of steps 1 to 3."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    manager = checkpoint.open_manager(folder, 3)
    for step in (1, 2, 3):
        checkpoint.save(manager, make(step))
    checkpoint.close(manager)
    return folder


@pytest.fixture
def folder(written, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(written, tmp_path / "checkpoints"))


def restored(folder: pathlib.Path) -> updates.TrainState:
    manager = checkpoint.open_manager(folder, 3)
    state = checkpoint.restore(manager, wanted())
    manager.close()
    return state


def arrays(folder: pathlib.Path, step: int) -> list[pathlib.Path]:
    """Files that hold the values of the parameters."""
    return sorted((folder / str(step) / "params" / "d").iterdir())


def truncate(folder: pathlib.Path) -> None:
    for path in arrays(folder, 3):
        path.write_bytes(path.read_bytes()[:3])


def remove(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / "3" / "params")


def flip(folder: pathlib.Path) -> None:
    (path,) = arrays(folder, 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def exchange(folder: pathlib.Path) -> None:
    """Parameters of another step: whole files with other values, which only a checksum can see."""
    shutil.rmtree(folder / "3" / "params")
    shutil.copytree(folder / "1" / "params", folder / "3" / "params")


def rename(folder: pathlib.Path) -> None:
    """A whole checkpoint under the number of another: training would skip steps."""
    shutil.rmtree(folder / "3")
    shutil.copytree(folder / "1", folder / "3")


@pytest.mark.parametrize("damage", [truncate, remove, flip, exchange, rename])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(folder, capsys, damage):
    """Breaks if damage ends a run whose older checkpoints are whole, or goes unseen."""
    damage(folder)
    params = checkpoint.restore_params(folder, wanted().params)  # as an unfinished run is opened
    assert float(params["w"][0, 0]) == 2
    state = restored(folder)
    assert int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, state, make(2))
    assert "checkpoint 3 is damaged" in capsys.readouterr().err
    assert (folder.parent / "checkpoints.damaged" / "3").is_dir()  # nothing is deleted
    manager = checkpoint.open_manager(folder, 3)
    checkpoint.save(manager, make(3))  # step 3 is taken again
    checkpoint.close(manager)
    assert int(restored(folder).step) == 3


def test_checkpoints_of_another_network_are_refused(folder):
    """Breaks if whole checkpoints are moved away because a config does not fit them."""
    other = wanted().params | {"w": jax.ShapeDtypeStruct((41, 50), jnp.float32)}
    with pytest.raises(ValueError, match="no checkpoint .* the config does not fit them"):
        checkpoint.restore_params(folder, other)
    assert sorted(p.name for p in folder.iterdir() if p.name.isdigit()) == ["1", "2", "3"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_never_saved(folder, value):
    """Breaks if a run that diverged replaces its last good checkpoint."""
    bad = make(4)
    bad.params["b"] = bad.params["b"].at[1].set(value)
    manager = checkpoint.open_manager(folder, 3)
    with pytest.raises(FloatingPointError, match="not finite at step 4"):
        checkpoint.save(manager, bad)
    checkpoint.close(manager)
    assert int(restored(folder).step) == 3


def test_a_full_disk_is_said_and_earlier_checkpoints_are_kept(folder):
    """Breaks if a checkpoint that cannot be written ends in a traceback or costs an older one.

    The kernel refuses files beyond 1 KiB, as it refuses all on a full disk.
    """
    noise = make(4)
    noise.params["w"] = jax.random.normal(jax.random.key(0), (40, 50))  # 8 kB, not compressible
    manager = checkpoint.open_manager(folder, 3)
    # Compiled before the limit, which JAX's cache of slow compilations would meet, too.
    checkpoint._inspect(checkpoint._items(noise))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError, match="could not be written.*\n.*the same command continues"):
            checkpoint.save(manager, noise)
            checkpoint.close(manager)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert int(restored(folder).step) == 3


def test_what_has_no_room_is_not_begun(folder, monkeypatch, capfd):
    """Breaks if a disk that is too small is found by Orbax's threads, in a thousand lines."""
    manager = checkpoint.open_manager(folder, 3)
    with monkeypatch.context() as small:
        usage = shutil.disk_usage(folder)._replace(free=2**12)
        small.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(OSError, match="has 0 MiB, and 0 MiB are free\n.*the same command"):
            checkpoint.save(manager, make(4))
    checkpoint.close(manager)
    assert capfd.readouterr().err == "" and int(restored(folder).step) == 3


def test_checksums_see_every_flipped_bit():
    """Breaks if a bit does not count, or two places count alike."""
    x = jnp.arange(32, dtype=jnp.float32).reshape(4, 8)
    clean = checkpoint._checksum(x)[1]
    for place in (0, 5, 31):
        words = np.asarray(x).view(np.uint32).copy().reshape(-1)
        for bit in range(32):
            words[place] ^= np.uint32(1 << bit)
            flipped = jnp.asarray(words.view(np.float32).reshape(4, 8))
            assert checkpoint._checksum(flipped)[1] != clean, (place, bit)
            words[place] ^= np.uint32(1 << bit)
    assert checkpoint._checksum(x[::-1])[1] != clean
