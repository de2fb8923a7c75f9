"""The answers of a black box, kept on disk: what was paid for is never asked again.

A bank is one file: a header line of JSON, then records of one length, each

    input id (16 bytes) | mask, packed bits (⌈N/8⌉) | answer, float32 (4 K) | CRC-32 (4)

all little-endian. It only ever grows at its end. What a crash leaves half written has a wrong
checksum or too few bytes, and is dropped when the bank opens again.
"""

import fcntl
import hashlib
import itertools
import json
import math
import os
import pathlib
import stat
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fex_jax import checks
from fex_jax.errors import HostError
from fex_jax.host.predictor import HostPredictor

_FORMAT = "fex-jax answers 1"
ID = 16  # bytes
_BLOCK = 2**24  # bytes read at a time
_CHECKS = {
    "queries": checks.either(checks.integer(0, 2**62), checks.nothing()),
    "price": checks.number(0, 1e30),
}


def identify(inputs: Any) -> list[bytes]:
    """Content ids of B inputs, strings or rows of an array: 16 bytes of BLAKE2b each."""
    return [hashlib.blake2b(_content(one), digest_size=ID).digest() for one in inputs]


def _content(one: Any) -> bytes:
    if isinstance(one, str):
        return b"text " + one.encode("utf-8", "surrogatepass")
    one = np.ascontiguousarray(one)
    return f"{one.dtype.str} {one.shape} ".encode() + one.tobytes()


class Bank:
    """Answers f(m⊙x) by (x, m), of one predictor under one removal of features.

    Args:
      path: the file; it is made where there is none. One process may have it open.
      predictor: f. It needs a `digest`.
      removal: what becomes of a removed feature, in words that change when it does.
      grid: (rows, columns) of the features, or (N,).
      queries: answers that the bank may hold in the end, with those that it has; None: any number.
      price: of one query, in any currency; for `statement`.
      sync: wait until the disk has each batch of answers. False leaves that to the system: a crash
        of the process then loses nothing, one of the machine the last seconds.

    Raises:
      HostError: a file that is no bank, is another predictor's or removal's, or is in use.
      ValueError: an argument that cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        predictor: HostPredictor,
        *,
        removal: str,
        grid: tuple[int, ...],
        queries: int | None = None,
        price: float = 0.0,
        sync: bool = True,
    ) -> None:
        if not predictor.digest:
            raise ValueError(
                f"answers are kept for later calls, which must know {predictor.name} again, and an "
                "object, a method or a lambda has no name that lasts: write def, or give host a "
                "digest, such as 'my-model-1'"
            )
        checks.require({"queries": queries, "price": price}, _CHECKS, "Bank")
        self.path, self.predictor = pathlib.Path(path), predictor
        self.size, self.classes = math.prod(grid), len(predictor.labels)
        self.queries, self.price, self.sync = queries, price, sync
        self._record = np.dtype(
            [
                ("id", f"V{ID}"),
                ("mask", "u1", (-(-self.size // 8),)),
                ("answer", "<f4", (self.classes,)),
                ("crc", "<u4"),
            ]
        )
        self._places: dict[bytes, int] = {}  # id and packed mask → offset of the record
        self._asked: dict[bytes, list[bytes]] | None = None  # id → packed masks, for `masks`
        self._lock = threading.RLock()
        header = {
            "format": _FORMAT,
            "predictor": predictor.digest,
            "output": predictor.output,
            "logits": predictor.logits,
            "labels": list(predictor.labels),
            "removal": removal,
            "grid": list(grid),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", 0)
        except OSError as error:
            raise HostError(f"the bank {self.path} cannot be opened: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):  # reading might not end
                raise HostError(f"the bank {self.path} is no file; choose another")
            self._open(header)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        """Answers held."""
        return len(self._places)

    @property
    def left(self) -> int | None:
        """Queries that may still be asked; None: any number."""
        return None if self.queries is None else max(self.queries - len(self), 0)

    def statement(self) -> str:
        """What the bank holds and what the rest of the budget costs, in one sentence."""
        held = f"{self.path} holds {len(self):,} answers of {self.predictor.name}"
        if self.left is None:
            return held + (f"; each further query costs {self.price:g}" if self.price else "")
        cost = f" for {self.left * self.price:,.2f}" if self.price else ""
        return f"{held}; {self.left:,} of {self.queries:,} queries are left{cost}"

    def find(self, ids: Sequence[bytes], masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answers [B, K] to masks [B, N] of inputs by id, and which of them are known, bool [B]."""
        with self._lock:
            answers = np.full((len(ids), self.classes), np.nan, np.float32)
            keys = self._keys(ids, masks)
            for row, key in enumerate(keys):
                if key in self._places:
                    answers[row] = self._read(self._places[key])["answer"]
            return answers, np.array([key in self._places for key in keys], bool)

    def ask(
        self, ids: Sequence[bytes], masks: np.ndarray, make: Callable[[np.ndarray], Any]
    ) -> np.ndarray:
        """Answers [B, K] to masks [B, N] of inputs by id; f is asked for those that are missing.

        Each batch of f's answers is on disk before the next is asked for.

        Args:
          make: rows → the masked inputs of those rows, as f takes them.

        Raises:
          HostError: more queries than are left, of which none is asked then; or f's. What f
            answered before is kept.
        """
        with self._lock:
            answers, known = self.find(ids, masks)
            keys = self._keys(ids, masks)
            first = {keys[row]: row for row in np.flatnonzero(~known)[::-1]}  # each once
            rows = np.array(sorted(first.values()), int)
            if self.queries == 0 and len(rows):
                raise HostError(
                    f"{self.path} has no answer to {len(rows):,} of {len(ids):,} questions, and "
                    "none may be asked: what learns from it needs the same data, seed and removal"
                )
            if self.left is not None and len(rows) > self.left:
                raise HostError(
                    f"the budget of {self.queries:,} queries is spent but for {self.left:,}, and "
                    f"{len(rows):,} are needed; all {len(self):,} answers are saved in "
                    f"{self.path}: raise queries to go on"
                )
            if not len(rows):
                return answers
            inputs = self.predictor.checked(make(rows))
            if len(inputs) != len(rows):
                raise ValueError(f"make made {len(inputs)} inputs of {len(rows)} rows")
            try:
                for piece, some in self.predictor.each(inputs):
                    self._append([keys[row] for row in rows[piece]], some)
            except HostError as error:
                if not len(self):
                    raise
                raise HostError(
                    f"{error}; all {len(self):,} answers are saved in {self.path}"
                ) from error
            return self.find(ids, masks)[0]

    def masks(self, ids: Sequence[bytes], count: int) -> np.ndarray:
        """The first masks that inputs were asked about, but that of all: bool [count, B, N].

        Where an input has fewer, because two that were drawn were the same, some come twice.

        Raises:
          HostError: it knows nothing of an input.
        """
        with self._lock:
            if self._asked is None:
                self._asked = {}
                whole = np.packbits(np.ones(self.size, bool), bitorder="little").tobytes()
                for key in self._places:  # in the order they came
                    if key[ID:] != whole:
                        self._asked.setdefault(key[:ID], []).append(key[ID:])
            missing = sum(one not in self._asked for one in ids)
            if missing:
                raise HostError(
                    f"{self.path} knows nothing of {missing} of {len(ids)} inputs: what learns "
                    "from it needs the same data and seed, and no more epochs"
                )
            chosen = [itertools.islice(itertools.cycle(self._asked[one]), count) for one in ids]
        packed = np.frombuffer(b"".join(b"".join(masks) for masks in chosen), np.uint8)
        packed = packed.reshape(len(ids), count, -1).swapaxes(0, 1)
        return np.unpackbits(packed, axis=-1, count=self.size, bitorder="little").astype(bool)

    def records(self) -> Iterator[tuple[bytes, np.ndarray, np.ndarray]]:
        """(input id, mask bool [N], answer [K]) of every answer, in the order they came."""
        with self._lock:
            places = sorted(self._places.values())
        for place in places:
            one = self._read(place)
            mask = np.unpackbits(one["mask"], count=self.size, bitorder="little")
            yield one["id"].tobytes(), mask.astype(bool), one["answer"].copy()

    def close(self) -> None:
        """Frees the file for another process."""
        self._file.close()

    def __enter__(self) -> "Bank":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, header: dict[str, Any]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError(
                f"the bank {self.path} is in use by another process; wait for it, or choose "
                "another workdir"
            ) from None
        line = json.dumps(header).encode() + b"\n"
        content = b""
        while b"\n" not in content and (block := self._file.read(2**20)):
            content += block
        self._start = content.find(b"\n") + 1
        if not self._start and line.startswith(content):  # new, or a crash came before its header
            self._file.seek(0)
            self._write(line)
            self._end = self._start = len(line)
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)  # the name of a new file is its folder's to keep
            os.close(folder)
            return
        try:
            found = json.loads(content[: self._start])
            if found["format"] != _FORMAT:
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise HostError(f"{self.path} is no bank of answers; choose another file") from None
        for field, wanted in header.items():
            if found.get(field) != wanted:
                raise HostError(
                    f"the bank {self.path} holds answers of another {field}, "
                    f"{_brief(found.get(field))}, and {_brief(wanted)} is asked for; use what it "
                    "was made with, or another workdir"
                )
        self._recover()

    def _recover(self) -> None:
        """Indexes the good records, and cuts off what a crash left behind the last of them."""
        size, key = self._record.itemsize, self._record.fields["answer"][1]
        offset = self._end = self._start
        bad = 0
        while block := os.pread(self._file.fileno(), max(_BLOCK // size, 1) * size, offset):
            for at in range(0, len(block) - size + 1, size):
                record = block[at : at + size]
                if zlib.crc32(record[:-4]) == int.from_bytes(record[-4:], "little"):
                    self._places[record[:key]] = offset + at
                    self._end = offset + at + size
                else:
                    bad += 1
            offset += len(block)
        total = os.fstat(self._file.fileno()).st_size
        damaged = bad - (total - self._end) // size
        if damaged > 0:
            warnings.warn(
                f"{damaged} answers inside the bank {self.path} are damaged and will be asked for "
                "again",
                stacklevel=4,
            )
        if total > self._end:
            self._file.truncate(self._end)

    def _append(self, keys: list[bytes], answers: np.ndarray) -> None:
        records = np.zeros(len(keys), self._record)
        split = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)
        records["id"] = np.ascontiguousarray(split[:, :ID]).view(f"V{ID}")[:, 0]
        records["mask"] = split[:, ID:]
        records["answer"] = answers
        raw = records.view(np.uint8).reshape(len(keys), -1)
        records["crc"] = [zlib.crc32(row[:-4].tobytes()) for row in raw]
        self._file.seek(self._end)
        try:
            self._write(records.tobytes())
        except OSError as error:
            self._file.truncate(self._end)  # a full disk: no half record stays
            raise HostError(
                f"the bank {self.path} cannot keep {len(keys)} answers: {error.strerror}"
            ) from error
        for key in keys:
            self._places[key] = self._end
            self._end += self._record.itemsize

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        if self.sync:
            os.fsync(self._file.fileno())

    def _read(self, place: int) -> np.void:
        return np.frombuffer(
            os.pread(self._file.fileno(), self._record.itemsize, place), self._record
        )[0]

    def _keys(self, ids: Sequence[bytes], masks: np.ndarray) -> list[bytes]:
        masks = np.asarray(masks).astype(bool)
        if masks.shape[0] != len(ids) or math.prod(masks.shape[1:]) != self.size:
            raise ValueError(
                f"masks have the shape {masks.shape} for {len(ids)} inputs; wanted "
                f"({len(ids)}, {self.size})"
            )
        masks = masks.reshape(len(ids), self.size)
        packed = np.packbits(masks, axis=-1, bitorder="little")
        return [i + mask.tobytes() for i, mask in zip(ids, packed, strict=True)]


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
