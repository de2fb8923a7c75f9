"""Scenes drawn ahead by other processes: the same pictures, whole files, read the next time."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fex_jax import data, feeding, pretrained, scenes, settings
from fex_jax.data import drawn
from fex_jax.preprocessing import Preprocessing

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LAYOUT = scenes.Layout(256)  # 16 scenes a file
DIGITS = scenes.split_objects(scenes.digits(), "validation")


def files(folder: pathlib.Path) -> dict[str, int]:
    """The finished files and the inode of each, which is another once one is written again."""
    return {str(p.relative_to(folder)): p.stat().st_ino for p in folder.glob("*/*.npy")}


def same(reader: drawn.Drawn, indices: list[int], *sequence) -> None:
    """Whether what is read is what would be drawn."""
    arrays = reader.read(np.array(indices))
    for place, index in enumerate(indices):
        for its, wanted in zip(arrays, scenes.draw(*sequence, index), strict=True):
            np.testing.assert_array_equal(its[place], wanted)


def train(cache: pathlib.Path | str, start: int) -> list:
    """Six batches of eight, of the first 40 scenes, from batch `start` on."""
    source = data.scene_source(scenes.digits(), LAYOUT, "train", cache=str(cache))
    preprocessing = Preprocessing(size=(256, 256))
    options = {"seed": 0, "start": start, "limit": 40, "augment": False}
    stream = data.train_stream(source, preprocessing, 8, **options)
    return [next(stream) for _ in range(6)]


@pytest.mark.parametrize("start", [0, 7])
def test_a_stream_is_the_same_with_a_cache(tmp_path, start):
    """Breaks if drawing ahead changes a pixel or the order, in the first epoch, in the next, when
    training resumes in the middle, or when everything is on disk."""
    wanted = train("", start)
    for _ in range(2):
        for batch, its in zip(train(tmp_path, start), wanted, strict=True):
            assert batch.keys() == its.keys()
            for name in its:
                np.testing.assert_array_equal(batch[name], its[name], strict=True)


def test_what_is_on_disk_is_not_drawn(tmp_path):
    """Breaks if a later run, or a second reader in the same folder, draws a block again."""
    first, second = (drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path), 16) for _ in range(2))
    same(first, [47, 5, 0, 17], DIGITS, LAYOUT, 1)
    found = files(tmp_path)
    assert len(found) >= 3
    same(second, [20, 0], DIGITS, LAYOUT, 1)
    assert found.items() <= files(tmp_path).items() and not second._drawers


def test_other_scenes_have_other_files(tmp_path):
    """Breaks if a reader takes the scenes of another seed, layout or split for its own."""
    quiet, others = scenes.Layout(256, noise=0.0), scenes.split_objects(scenes.digits(), "test")
    given = (DIGITS, LAYOUT, 1), (DIGITS, LAYOUT, 2), (DIGITS, quiet, 1), (others, LAYOUT, 1)
    for sequence in given:
        same(drawn.Drawn(*sequence, str(tmp_path), 16), [3], *sequence)
    assert len(list(tmp_path.iterdir())) == 4


def test_two_readers_share_a_folder(tmp_path):
    """Breaks if drawers of two readers, each given the same blocks, spoil each other's files."""
    readers = [drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path), 16) for _ in range(2)]
    for reader in readers:
        for number in range(6):
            reader._ask(number)
    for index in range(0, 96, 8):
        for reader in readers:
            same(reader, [index], DIGITS, LAYOUT, 1)


def test_killed_drawers_leave_whole_files_or_none(tmp_path):
    """Breaks if a block that was being written when its process was killed is ever read, or if
    a reader waits for a process that is gone."""
    reader = drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path), 16)
    for number in range(6):
        for later in range(number, number + 3):
            reader._asked.get(later) or reader._ask(later)
        time.sleep(0.12 * number)  # kills before it reads, while it draws, while it writes
        for drawer in reader._drawers:
            drawer._process.send_signal(signal.SIGKILL)
        for path in tmp_path.glob("*/*.npy"):
            assert reader._sequence.read(int(path.stem)) is not None
        same(reader, [16 * number], DIGITS, LAYOUT, 1)


def test_a_damaged_file_is_drawn_again(tmp_path):
    """Breaks if a file that a failing disk cut short ends a run, or is read."""
    drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path), 16).read(np.array([0]))
    (path,) = tmp_path.glob("*/000000.npy")
    for content in (path.read_bytes()[:-1000], b"", b"none"):
        path.write_bytes(content)
        reader = drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path), 16)
        same(reader, [15], DIGITS, LAYOUT, 1)


def test_a_cleared_cache_is_filled_again(tmp_path):
    """Breaks if a run ends because somebody cleared its cache meanwhile."""
    reader = drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path / "cache"), 16)
    same(reader, [0], DIGITS, LAYOUT, 1)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    same(reader, [1, 40, 90], DIGITS, LAYOUT, 1)
    assert files(tmp_path / "cache")


def test_a_file_that_cannot_be_written_is_said_once(tmp_path, capfd):
    """Breaks if the processes that draw print tracebacks beside the error of their reader."""
    reader = drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path), 16)
    (reader._sequence.folder / "000000.partial").mkdir()
    with pytest.raises(IsADirectoryError, match="000000.partial"):
        reader.read(np.array([0]))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cache", ["~nobody-of-that-name/cache", "a\0b", "/proc/cache"])
def test_no_folder_is_a_sentence(cache):
    """Breaks if a cache that cannot be made ends deep inside, or at its first block."""
    with pytest.raises(ValueError, match="--config.data.cache: .* is no folder to write to"):
        drawn.Drawn(DIGITS, LAYOUT, 1, cache, 16)


def test_the_folder_is_bounded(tmp_path):
    """Breaks if files are kept beyond the bound, if the one read last is the first to go, or if
    files of others go."""
    drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path), 16).read(np.array([0]))
    drawn.Drawn(DIGITS, LAYOUT, 2, str(tmp_path), 16).read(np.array([0]))
    (tmp_path / "notes.npy").write_bytes(b"mine")
    time.sleep(0.02)
    drawn.Drawn(DIGITS, LAYOUT, 1, str(tmp_path), 16).read(np.array([0]))
    sizes = [path.stat().st_size for path in tmp_path.glob("*/*.npy")]
    kept = {path.parent for path in tmp_path.glob("*/*.npy")}
    drawn._trim(tmp_path, sum(sizes) - 1)
    (gone,) = kept - {path.parent for path in tmp_path.glob("*/*.npy")}
    assert gone.name.endswith(drawn._digest(DIGITS, LAYOUT, 2))
    drawn.Drawn(DIGITS, LAYOUT, 3, str(tmp_path), 0).read(np.array([0]))
    assert len(files(tmp_path)) == 1 and (tmp_path / "notes.npy").read_bytes() == b"mine"


def test_settings_name_the_folder(tmp_path):
    """Breaks if `--config.data.cache` is not heard, or a folder that cannot be one is no error."""
    config = settings.default()
    config.data.name, config.data.cache = "digit_scenes", str(tmp_path / "new" / "cache")
    predictor = pretrained.load(str(ROOT / "models/digits_vit"))
    source = feeding.of(predictor).open_source(predictor, config, "test")
    pixels = feeding.of(predictor).first(predictor, source, config, 2)
    digits = scenes.split_objects(scenes.digits(), "test")
    np.testing.assert_array_equal(pixels[1], scenes.draw(digits, scenes.Layout(), 2, 1).image)
    assert files(tmp_path / "new" / "cache")
    config.data.cache = str(tmp_path / "file")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--config.data.cache"):
        feeding.of(predictor).open_source(predictor, config, "test")


def test_a_process_ends_with_a_stream_open(tmp_path):
    """Breaks if the end of a script waits for a stream that waits for Python, or leaves drawers."""
    code = (
        "from fex_jax import data, scenes; from fex_jax.preprocessing import Preprocessing; "
        "source = data.scene_source(scenes.digits(), scenes.Layout(), 'train', cache=cache); "
        "stream = data.train_stream(source, Preprocessing(), 64, seed=0, augment=False); "
        "print(len(next(stream)['label']))"
    )
    for cache in ("", str(tmp_path)):
        call = [sys.executable, "-c", f"cache = {cache!r}; {code}"]
        out = subprocess.run(call, capture_output=True, text=True, check=True, timeout=120)
        assert out.stdout.strip() == "64" and "Traceback" not in out.stderr
