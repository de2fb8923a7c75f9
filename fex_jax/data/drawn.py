"""Scenes that other processes draw ahead of their reader, in files that later readers find.

A file holds as many scenes as fit 4 MiB, in their order, and its folder's name is a digest of all
that its scenes depend on. A file is written under another name and renamed: what is there is whole.
"""

import collections
import contextlib
import fcntl
import hashlib
import os
import pathlib
import pickle
import platform
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import PIL

from fex_jax import checks, scenes

_BLOCK = 2**22  # bytes of a file, about
_OPEN = 4  # files that a reader keeps open
_DRAWERS = 16  # processes at most: they draw more small scenes than a GPU takes
_AHEAD = 2  # files that each of them has to draw
_TRIM = 64  # files drawn from one look at the folder's size to the next


class Sequence(NamedTuple):
    """The endless sequence of scenes that three things name, and where its files are."""

    objects: scenes.Objects
    layout: scenes.Layout
    seed: int
    folder: pathlib.Path

    @property
    def per_file(self) -> int:
        """Scenes in a file."""
        return max(1, _BLOCK // (4 * self.layout.image_size**2))

    @property
    def dtype(self) -> np.dtype:
        """Of a scene in a file."""
        side = self.layout.image_size
        fields = [("image", "u1", (side, side, 3)), ("segmentation", "u1", (side, side))]
        return np.dtype([*fields, ("label", "<i4")])

    def path(self, number: int) -> pathlib.Path:
        """The file of a block, whether it is there or not."""
        return self.folder / f"{number:06d}.npy"

    def write(self, number: int) -> None:
        """Draws a block into its file, if nobody did.

        A process that draws holds a lock on the partial file, so others wait and find the block.
        Where there are no locks, two write the same bytes to the same places.
        """
        path = self.path(number)
        partial = path.with_suffix(".partial")
        with checks.room(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)  # someone may have cleared the cache
            opened = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
            with open(opened, "r+b") as file:
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                if path.is_file():
                    return
                block = np.empty(self.per_file, self.dtype)
                for place in range(self.per_file):
                    index = number * self.per_file + place
                    scene = scenes.draw(self.objects, self.layout, self.seed, index)
                    block[place] = scene.image, scene.segmentation, scene.label
                np.save(file, block)
                file.truncate()  # of a drawer that was killed there may be more
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)

    def read(self, number: int) -> np.ndarray | None:
        """A block, mapped into memory; None: it is not there, or not whole."""
        path = self.path(number)
        try:
            block = np.load(path, mmap_mode="r", allow_pickle=False)
            if (block.shape, block.dtype) == ((self.per_file,), self.dtype):
                with contextlib.suppress(OSError):  # of a folder that may only be read
                    os.utime(path)  # the files that were not read for longest go first
                return block
            path.unlink()
        except FileNotFoundError:
            pass
        except (ValueError, EOFError):
            path.unlink(missing_ok=True)
        return None


class Drawn:
    """Scenes of one sequence, by number. Several threads may ask; files are drawn as they read on.

    Args:
      cache: the folder of all files, of other sequences, too; made if it is not there.
      gib: what they may take together, about. Beyond it, those that were not read for longest go.

    Raises:
      ValueError: `cache` cannot be such a folder.
    """

    def __init__(
        self, objects: scenes.Objects, layout: scenes.Layout, seed: int, cache: str, gib: int
    ) -> None:
        folder = pathlib.Path(cache) / f"scenes-{_digest(objects, layout, seed)}"
        folder = checks.folder(folder, "--config.data.cache").resolve()
        self._cache, self._most = folder.parent, gib * 2**30
        self._sequence = Sequence(objects, layout, seed, folder)
        self._blocks: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._drawers: list[_Drawer] = []
        self._asked: dict[int, _Drawer] = {}
        self._ahead, self._count = 1, 0  # files to be drawn from the one that is read on; all drawn
        weakref.finalize(self, _end, self._drawers)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, classes and segmentations [n, …] of these numbers, as `scenes.draw` has them."""
        numbers, places = np.divmod(indices, self._sequence.per_file)
        rows = np.empty(len(indices), self._sequence.dtype)
        with self._lock:
            for number in np.unique(numbers).tolist():
                chosen = numbers == number
                rows[chosen] = self._block(number)[places[chosen]]
        return rows["image"], rows["label"], rows["segmentation"]

    def _block(self, number: int) -> np.ndarray:
        """A block from its file, which is drawn first if need be, as are those after it."""
        if number in self._blocks:
            return self._blocks[number]
        # Whoever wants a few scenes gets one file; whoever reads on, twice as many each time.
        for later in range(number, number + self._ahead):
            if later not in self._asked and not self._sequence.path(later).is_file():
                self._ask(later)
        self._ahead = min(2 * self._ahead, _AHEAD * _most_drawers())
        if number in self._asked:
            self._asked.pop(number).wait(number)
        while (block := self._sequence.read(number)) is None:  # damaged, or its drawer was killed
            self._sequence.write(number)
        self._blocks[number] = block
        if len(self._blocks) > _OPEN:
            self._blocks.popitem(last=False)
        return block

    def _ask(self, number: int) -> None:
        """Gives a block to the drawer that has least to do, to a new one as long as all do."""
        for dead in [drawer for drawer in self._drawers if not drawer.lives()]:
            self._asked = {n: drawer for n, drawer in self._asked.items() if drawer is not dead}
            self._drawers.remove(dead)
            dead.end()
        waiting = collections.Counter(self._asked.values())
        drawer = min(self._drawers, key=lambda drawer: waiting[drawer], default=None)
        if drawer is None or (waiting[drawer] and len(self._drawers) < _most_drawers()):
            drawer = _Drawer(self._sequence)
            self._drawers.append(drawer)
        drawer.ask(number)
        self._asked[number] = drawer
        if self._count % _TRIM == 0:
            _trim(self._cache, self._most)
        self._count += 1


class _Drawer:
    """A process that draws the blocks it is asked for, one after the other."""

    def __init__(self, sequence: Sequence) -> None:
        # Not of multiprocessing: its processes run the caller's script again as they start, and
        # stay when the caller is killed. This one ends with its standard input.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
            | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        )
        self._drawn: set[int] = set()
        self._send(pickle.dumps(sequence))

    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, number: int) -> None:
        self._send(b"%d\n" % number)

    def wait(self, number: int) -> None:
        """Until a block is drawn, or the process has ended."""
        assert self._process.stdout
        while number not in self._drawn and (line := self._process.stdout.readline()):
            self._drawn.add(int(line))
        self._drawn.discard(number)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _send(self, what: bytes) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it was killed: the reader draws
            self._process.stdin.write(what)
            self._process.stdin.flush()


def _end(drawers: list[_Drawer]) -> None:
    for drawer in drawers:
        drawer.end()


def _most_drawers() -> int:
    return min(_DRAWERS, os.cpu_count() or 1)


def _digest(objects: scenes.Objects, layout: scenes.Layout, seed: int) -> str:
    """Of all that pixels depend on: the code that draws and its processor's rounding, too."""
    code = pathlib.Path(scenes.__file__).read_bytes()
    found = hashlib.sha256(code)
    versions = np.__version__, PIL.__version__, platform.machine()
    found.update(repr((versions, layout, seed, objects.names)).encode())
    for array in (objects.images, objects.classes, *objects.backgrounds):
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def _files(cache: pathlib.Path) -> Iterator[tuple[float, int, pathlib.Path]]:
    """When each file was read last, its bytes, and where it is."""
    for pattern in ("scenes-*/*.npy", "scenes-*/*.partial"):
        for path in cache.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                found = path.stat()
                yield found.st_mtime, found.st_size, path


def _trim(cache: pathlib.Path, most: int) -> None:
    """Removes what was not read for longest until a folder holds `most` bytes."""
    files = sorted(_files(cache))
    left = sum(size for _, size, _ in files)
    for _, size, path in files:
        if left <= most:
            return
        with contextlib.suppress(PermissionError):  # another user's, in a folder that is shared
            path.unlink(missing_ok=True)
            left -= size


def _draw() -> None:
    """What a drawer does: numbers in, the same numbers out once their blocks are on disk."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its caller is interrupted, and ends it
    sequence = pickle.load(sys.stdin.buffer)  # from the process that started this one
    for line in sys.stdin.buffer:
        try:
            sequence.write(int(line))
        except OSError:  # its reader tries it next, and says what is wrong
            return
        with contextlib.suppress(BrokenPipeError):  # the caller was killed; no more lines come
            os.write(1, line)


if __name__ == "__main__":
    _draw()
