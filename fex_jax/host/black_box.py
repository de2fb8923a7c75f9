"""A host predictor as a predictor like any other: trained for, explained, scored.

Every query leaves JAX through one function, `BlackBox.ask`: inputs by id, masks, and what the
masked inputs look like. A bank in the place of f keeps the answers.

How inputs are read, by f and by the network that explains, is the `Reads` of f's modality. It has

    modality, explained: see `BlackBox`
    banked: whether f's answers are always kept in a bank; see `keeps`
    fields: what is saved of it, and how that is checked
    removal, removal_fields: what becomes of a removed feature, a class, and the same of that
    of(f, removal) -> it, of which only f is known, and the removal, or the usual one
    policy(config, f, source) -> the network, its first parameters or None, and it
    input: what f takes, as `host` says it
    config(num_classes, removal) -> sizes
    fits(backbone, removal) -> whether a network reads these inputs
    bind, show, ask: see `BlackBox.bind`, `.show` and `.answer`
    kept_by(removal) -> what a bank knows its answers by
    save(directory) -> `fields`, beside the files that it writes
    read(fields, directory) -> what was saved

and, but of tables, `candidates(config, f)`, among which the probe chooses.
"""

import contextlib
import dataclasses
import json
import pathlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeAlias, get_args

import jax
import numpy as np

from fex_jax import checks, modalities, tokens
from fex_jax.errors import HostError
from fex_jax.host.bank import Bank
from fex_jax.host.model import callback, plain_errors
from fex_jax.host.predictor import HostPredictor
from fex_jax.models import Params
from fex_jax.outputs import Output, told
from fex_jax.predictors import Inputs, Model
from fex_jax.preprocessing import Preprocessing
from fex_jax.probing import Probe

Reads: TypeAlias = Any  # see above

ANSWERS, MASKS = "answers.bank", "masks.bank"  # in a run's folder
_FILE = "black_box.json"
_FIELDS = {
    "name": checks.text(),
    "digest": checks.text(),
    "labels": checks.several(checks.text(), at_least=1),
    "output": checks.one_of(*get_args(Output)),
}
_DEFAULTS = {"plain": False}  # of exports that do not say


@dataclasses.dataclass(frozen=True)
class BlackBox:
    """f as the package takes a predictor; `of` makes one.

    Attributes:
      name, digest, labels, output: those of the host predictor.
      removal: what becomes of a removed feature.
      reads: what f sees of an input, and what a network that explains.
      f: what answers; None: it is not at hand, and only what needs no query works.
      notes: keeps the masks that inputs were asked about, where f's answers are kept without them.
      probe: what survives the removal, where it is known.
    """

    name: str
    digest: str
    labels: tuple[str, ...]
    output: Output
    removal: Any
    reads: Reads
    # No parts of its identity.
    f: HostPredictor | Bank | None = dataclasses.field(default=None, compare=False, repr=False)
    notes: Bank | None = dataclasses.field(default=None, compare=False, repr=False)
    probe: Probe | None = dataclasses.field(default=None, compare=False, repr=False)
    inside: ClassVar[bool] = False  # methods may not look inside
    params: ClassVar[Params] = {}

    @property
    def modality(self) -> str:
        """Of `fex_jax.modalities`."""
        return self.reads.modality

    @property
    def explained(self) -> Output | None:
        """What its `Model` answers with, where that is something else than what f says."""
        return self.reads.explained

    @property
    def config(self) -> Any:
        """Sizes."""
        return self.reads.config(len(self.labels), self.removal)

    @property
    def preprocessing(self) -> Preprocessing:
        """Of pictures."""
        return self.reads.preprocessing

    @property
    def tokenizer(self) -> tokens.Tokenizer:
        """Of texts."""
        return self.reads.tokenizer

    @property
    def identity(self) -> tuple:
        """Everything that its answers depend on."""
        return self.digest, self.labels, str(self.removal), *told(self.output)

    @property
    def absence(self) -> str:
        """What is said where f is needed and not at hand; "": it is."""
        if self.f is not None:
            return ""
        return (
            f"this takes queries, and {self.name} is not at hand: open the explainer with "
            "fex_jax.load(run, predictor=f)"
        )

    def asking(self, f: HostPredictor | Bank) -> "BlackBox":
        """The same box with f at hand.

        Raises:
          ValueError: another f than the one that was explained, or what is none.
        """
        if not isinstance(f, HostPredictor | Bank):
            raise ValueError(
                f"predictor is of type {type(f).__name__}; expected what fex_jax.host returns, a "
                "name that fex_jax.host.open takes, or a bank"
            )
        given = f.predictor if isinstance(f, Bank) else f
        mine = {"labels": self.labels, "output": self.output, "input": self.reads.input}
        for field, own in mine.items():
            if getattr(given, field) != own:
                raise ValueError(
                    f"{given.name} has the {field} {_brief(getattr(given, field))}, but "
                    f"{self.name}, which is explained, {_brief(own)}"
                )
        if given.modality != self.modality:
            raise ValueError(
                f"{given.name} takes {given.modality}, but {self.name}, which is explained, "
                f"{self.modality}: give host the features that it was explained with, or none"
            )
        if given.features and (other := given.features.removal(given.input)) != self.removal:
            raise ValueError(
                f"{given.name} has {other}, but {self.name}, which is explained, {self.removal}"
            )
        if given.digest and given.digest != self.digest:
            raise ValueError(
                f"{given.name} has the digest {given.digest!r}, but {self.name}, which is "
                f"explained, {self.digest!r}: give host that digest if they answer alike"
            )
        return dataclasses.replace(self, f=f)

    def ask(
        self,
        ids: Callable[[], Sequence[bytes]],
        masks: np.ndarray,
        make: Callable[[np.ndarray], Any],
    ) -> np.ndarray:
        """f's answers [B, K] to masks [B, N] of inputs; rows that `make` makes are asked.

        A bank knows the inputs by `ids`. Features of f's own are removed of them here.

        Raises:
          HostError: f is not at hand, or has failed.
        """
        if self.f is None:
            raise HostError(self.absence)
        own = (self.f.predictor if isinstance(self.f, Bank) else self.f).features

        def asked(rows: np.ndarray) -> Any:
            return own.remove(make(rows), masks[rows]) if own else make(rows)

        if isinstance(self.f, Bank):
            return self.f.ask(ids(), masks, asked)
        return self.f(asked(np.arange(len(masks))))

    def bind(self, _: Params, batch: Any) -> tuple[Model, Inputs]:
        """A batch, pictures [B, H, W, 3] in 0..255, a `TokenBatch` or rows, as `Model`'s inputs."""
        return self.reads.bind(batch, self.removal, self._predict, self.output)

    def show(self, inputs: Inputs) -> tuple[jax.Array, ...]:
        """All that `answer` needs of inputs, jittable."""
        return self.reads.show(inputs, self.removal)

    def answer(self, *shown: np.ndarray) -> np.ndarray:
        """f's answers [B, K] to what `show` shows; on the host.

        Raises:
          HostError: f is not at hand, or has failed.
        """
        return self.reads.ask(self.ask, self.removal, *shown)

    def note(self, step: int, masks: np.ndarray, *shown: np.ndarray) -> None:
        """Keeps the masks [S, B, N] of a step that f is asked about, where its answers do not."""
        if self.notes is not None:
            self.reads.note(self.notes, step, masks, *shown)

    def asked(self, step: int, count: int, *shown: np.ndarray) -> np.ndarray:
        """Masks that inputs were asked about, of tables in that step, else first: [count, B, N].

        Raises:
          HostError: the bank knows nothing of an input; see `Bank.masks`.
        """
        if self.notes is not None:
            return self.reads.asked(self.notes, step, count, *shown)
        assert isinstance(self.f, Bank)  # whose answers are kept by ids, which are shown first
        return self.f.masks([row.tobytes() for row in shown[0]], count)

    def _predict(self, inputs: Inputs) -> jax.Array:
        return callback(self.answer, len(self.labels), *self.show(inputs))

    def save(self, directory: pathlib.Path) -> None:
        """Writes what is known of f, and removal.json; f itself stays where it is."""
        directory.mkdir(parents=True, exist_ok=True)
        values = {name: getattr(self, name) for name in _FIELDS} | self.reads.save(directory)
        values["modality"] = self.modality
        removal = {name: getattr(self.removal, name) for name in self.reads.removal_fields}
        if self.probe:
            removal["probe"] = dataclasses.asdict(self.probe)
        for file, content in ((_FILE, values), ("removal.json", removal)):
            (directory / file).write_text(json.dumps(content, indent=2) + "\n")


def kind_of(f: HostPredictor) -> type[Reads]:
    """How f's inputs are read."""
    return modalities.named(f.modality).Reads


def of(f: HostPredictor, removal: Any = None, reads: Reads | None = None) -> BlackBox:
    """The box of a host predictor, of whatever modality.

    Args:
      f: what is to be explained.
      removal: what becomes of removed features; None: see the `of` of how they are read.
      reads: what a network that explains reads; None: see there.

    Raises:
      ValueError: a predictor of something else.
    """
    usual, removal = kind_of(f).of(f, removal)
    digest = f.digest or f"unnamed {uuid.uuid4().hex}"  # never taken for another
    return BlackBox(f.name, digest, f.labels, f.output, removal, reads or usual, f)


def keeps(
    f: HostPredictor, reads: Reads, workdir: pathlib.Path, queries: int | None, price: float
) -> bool:
    """Whether a run keeps what f says: of tables, if that costs something, or it began to."""
    costs = f.costly or price > 0 or queries is not None
    return reads.banked or costs or (workdir / ANSWERS).is_file()


@contextlib.contextmanager
def recorded(
    explainers: Sequence[Any],
    f: HostPredictor,
    workdir: pathlib.Path,
    queries: int | None = None,
    price: float = 0.0,
) -> Iterator[list[Any]]:
    """The `explain.Explainer`s of one black box with f at hand; a run's bank `keeps` what it says.

    `queries` are the answers that the bank may hold in the end; None: any number. What has a
    `price` is on the disk before f is asked for more.
    """
    box, given = explainers[0].predictor, {"queries": queries, "price": price, "sync": price > 0}
    bank: Any = contextlib.nullcontext(f)
    if keeps(f, box.reads, workdir, queries, price):
        bank = Bank(workdir / ANSWERS, f, **given, **box.reads.kept_by(box.removal))
    with bank as asked, plain_errors():
        yield [explainer.asking(asked) for explainer in explainers]


def is_saved(directory: pathlib.Path) -> bool:
    """Whether a folder holds a black box's description."""
    return (directory / _FILE).is_file()


def read(directory: pathlib.Path) -> BlackBox:
    """What `save` wrote, without f.

    Raises:
      ValueError: names what is missing or wrong.
    """
    file = checks.file_inside(directory, _FILE)
    kind = modalities.named(_modality(file)).Reads
    values = _read(file, _FIELDS | kind.fields)
    file = checks.file_inside(directory, "removal.json")
    removal = kind.removal(**_read(file, kind.removal_fields))
    own = {name: values[name] for name in _FIELDS} | {"probe": _probe(file)}
    return BlackBox(**own, removal=removal, reads=kind.read(values, directory))


def _modality(file: pathlib.Path) -> str:
    """The one that a file names; where it names none, that whose fields it has."""
    found, names = _DEFAULTS | checks.read_json(file), modalities.names()
    if "modality" in found:
        checks.require(found, {"modality": checks.one_of(*names)}, file)
        return found["modality"]
    kinds = {name: modalities.named(name).Reads.fields.keys() for name in names}
    return next((name for name in names if kinds[name] <= found.keys()), "images")


def _probe(file: pathlib.Path) -> Probe | None:
    """What a saved probe said; None: there was none."""
    found = checks.read_json(file).get("probe")
    if found is None:
        return None
    checks.require({"probe": found}, {"probe": checks.mapping()}, file)
    one, share = checks.number(-1e30, 1e30), checks.number(0, 1)
    wanted = {
        "clean": one,
        "blank": one,
        "shares": checks.several(share, at_least=1),
        "answers": checks.several(one, at_least=1),
    }
    probe = Probe(**_fields(found, wanted, file))
    if len(probe.shares) != len(probe.answers):
        raise ValueError(
            f"{file}: probe has {len(probe.shares)} shares, {len(probe.answers)} answers"
        )
    return probe


def _read(path: pathlib.Path, wanted: dict[str, checks.Check]) -> dict[str, Any]:
    """The fields of a JSON file, lists as tuples."""
    return _fields(_DEFAULTS | checks.read_json(path), wanted, path)


def _fields(
    values: dict[str, Any], wanted: dict[str, checks.Check], path: pathlib.Path
) -> dict[str, Any]:
    for name in wanted:
        if name not in values:
            raise ValueError(f"{path}: {name} is missing")
    checks.require(values, wanted, path)
    return {n: tuple(values[n]) if type(values[n]) is list else values[n] for n in wanted}


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
