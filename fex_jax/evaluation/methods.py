"""Methods by name, functions of one's own and explainers, as rows of a table."""

import contextlib
import importlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fex_jax import attributions, explain, finding, host, objectives, pretrained
from fex_jax.evaluation import cache, fingerprint, tasks
from fex_jax.evaluation.run import Method, of_function, trained
from fex_jax.host import black_box
from fex_jax.models.bert import BertConfig
from fex_jax.models.vit import ViTConfig
from fex_jax.predictors import Bind

if TYPE_CHECKING:  # of training
    import ml_collections

# Names that --methods gives a meaning, and those of explainers.
_TRAINED = tuple(objectives.KINDS)
_RESERVED = ("all", *_TRAINED, *(f"{name}-unet" for name in _TRAINED))

Given = str | Callable | explain.Explainer


def load_explainers(
    paths: Sequence[str | pathlib.Path], dtype: str = "float32"
) -> list[explain.Explainer]:
    """What train.py wrote to several folders, all for one predictor.

    Raises:
      ValueError: one explains another predictor than the first, or other features of it.
    """
    explainers = [explain.load(path, dtype=dtype) for path in paths]
    check_comparable(explainers, list(map(str, paths)))
    return explainers


@contextlib.contextmanager
def opened(
    paths: Sequence[str | pathlib.Path],
    config: "ml_collections.ConfigDict",
    f: str | None = None,
    queries: int | None = None,
) -> Iterator[list[explain.Explainer]]:
    """The same; of a black box with f at hand, whose answers the first run's bank keeps.

    Args:
      paths: as `load_explainers` takes them.
      config: of the run; its `predictor` says how f is opened, its `dtype` what products are.
      f: a name that `host.open` takes; None: the one in the config.
      queries: answers that the bank may hold in the end; None: any number.

    Raises:
      ValueError: f has no name, or is another than the one that is explained.
    """
    explainers = load_explainers(paths, config.dtype)
    box = explainers[0].predictor
    if box.inside:
        if f is not None or queries is not None:
            raise ValueError(
                f"{paths[0]} holds its predictor, which is no black box: leave out the name of one "
                "and its queries"
            )
        yield explainers
        return
    f = f or config.predictor.path
    if not f:
        raise ValueError(f"{box.name} is not in {paths[0]}: say with --predictor where it is")
    own = {"labels": box.labels, "input": box.reads.input}
    asked = host.open(f, **host.parse_options(config.predictor.options) | own)
    folder, price = pathlib.Path(paths[0]), config.predictor.price
    with black_box.recorded(explainers, asked, folder, queries, price) as asking:
        yield asking


def check_comparable(explainers: Sequence[explain.Explainer], names: Sequence[str]) -> None:
    """Refuses explainers that cannot be rows of one table; `names` are for the error.

    Raises:
      ValueError: one explains another predictor than the first, or other features of it.
    """
    first = fingerprint.of(explainers[0].predictor)
    for name, explainer in zip(names[1:], explainers[1:], strict=True):
        if fingerprint.of(explainer.predictor) != first:
            raise ValueError(f"{name} explains another predictor than {names[0]}")
        for field in ("unit", "removal", "fill", "dtype"):
            own, other = getattr(explainer, field), getattr(explainers[0], field)
            if own != other:
                raise ValueError(
                    f"{name} has {field}={own!r}, but {names[0]} has {other!r}: "
                    "score them in tables of their own"
                )


def choose(
    given: Sequence[Given],
    explainers: Sequence[explain.Explainer],
    bind: Bind,
    predictor: Any,
    options: Mapping[str, Mapping[str, Any]],
    refine: int = 0,
) -> list[Method]:
    """The explainers, then the same refined by queries, then the methods asked for.

    Raises:
      ValueError: an unknown name, options of a method that is not there, two rows of one name.
    """
    found = [trained(explainer) for explainer in explainers]
    found += [trained(explainer, refine) for explainer in explainers if refine]
    expanded = _expand(given, predictor)
    if not predictor.inside:
        for name in (one for one in expanded if one in attributions.LOOKS_INSIDE):
            raise ValueError(
                f"{name} looks inside the classifier, and {predictor.name} can only be queried: "
                f"choose of {', '.join(_of(predictor))}"
            )
    else:
        for name in (one for one in expanded if one in _of_others(predictor)):
            attends = name in attributions.TRANSFORMERS_ONLY
            kind = "transformer like ViT or BERT" if attends else "convolutional network"
            raise ValueError(
                f"{name} looks inside a {kind}, and the classifier is a "
                f"{predictor.config.family}: choose of {', '.join(_of(predictor))}"
            )
    functions: list[tuple[str, Callable]] = []
    for name, function in map(named, expanded):
        if not any(function is other for _, other in functions):
            functions.append((name, function))
    for name in options.keys() - dict(functions).keys() - attributions.METHODS.keys():
        raise ValueError(f"there are options for {name!r}, which is no method")
    for name, function in functions:
        found.append(of_function(name, function, options.get(name, {}), bind, predictor.params))
    return found


def named(given: Given) -> tuple[str, Callable]:
    """A name and its function, of the library or, as "package.module:function", of one's own.

    Raises:
      ValueError: neither.
    """
    if given in attributions.METHODS:
        return given, attributions.METHODS[given]
    if isinstance(given, str):
        finding.methods([given])
        module, _, name = given.partition(":")
        try:
            given = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"there is no method {given}: {error}") from None
    if not callable(given):
        raise ValueError(
            f"{given!r} is no method: expected a name, a function (model, inputs, targets, key, "
            "**options), or an explainer"
        )
    name = getattr(given, "__name__", type(given).__name__)
    if attributions.METHODS.get(name, given) is not given:
        raise ValueError(f"{name!r} is a method's name in this library: rename your function")
    return name, given


def check_rows(methods: Sequence[Method], external: Mapping[str, Any]) -> None:
    """Refuses rows that share a name, or scores from elsewhere under a method's.

    Raises:
      ValueError: names the first of them.
    """
    explainers = dict.fromkeys(m.name for m in methods if "explainer" in m.settings)
    others = [m.name for m in methods if "explainer" not in m.settings]
    for name in external:
        if name.casefold().partition("+")[0] in {*attributions.METHODS, *_RESERVED}:
            raise ValueError(f"{name!r} is a method's name: call your scores something else")
    cache.check_names([*explainers, *others, *external])


def open_predictor(
    predictor: Any, given: Sequence[Given]
) -> tuple[tasks.Predictor, list[explain.Explainer], Sequence[Given]]:
    """The predictor, the explainers among the methods, and the other methods."""
    if isinstance(predictor, str | os.PathLike):
        path = pathlib.Path(predictor).expanduser()
        is_run = any((path / part / "explainer.json").is_file() for part in (".", "export"))
        if is_run:
            predictor = explain.load(path)
        elif host.is_name(str(predictor)):
            predictor = host.open(predictor)
        else:
            predictor = pretrained.load(str(predictor))
    elif not isinstance(predictor, explain.Explainer | tasks.Predictor):
        predictor = host.open(predictor) if host.is_object(predictor) else predictor
    if isinstance(predictor, host.HostPredictor):
        predictor = black_box.of(predictor)
    if isinstance(predictor, explain.Explainer):
        own = predictor.name, predictor.method  # "fex-unet", or "fex" of any network
        given = [predictor if one in own else one for one in given]
        classifier = predictor.predictor
    elif isinstance(predictor, tasks.Predictor):
        classifier = predictor
    else:
        raise ValueError(
            f"the predictor is of type {type(predictor).__name__}; expected a classifier that "
            "fex_jax.pretrained.load opens, an explainer that fex_jax.load opens, or where it lies"
        )
    reads = getattr(classifier, "reads", None)
    if getattr(reads, "background", ()) is None:
        raise ValueError(
            f"{classifier.name} takes {classifier.modality}: give an explainer of fex_jax.fit in "
            "its place, which knows the columns and what removed ones become"
        )
    explainers = [one for one in given if isinstance(one, explain.Explainer)]
    others = [one for one in given if not isinstance(one, explain.Explainer)]
    for one in others:
        if one in _TRAINED:
            raise ValueError(
                f"{one!r} is an explainer: pass it, as fex_jax.load opens it, among the methods or "
                "in the predictor's place"
            )
    return classifier, explainers, others


def settled(explainers: Sequence[explain.Explainer], **given: Any) -> tuple[Any, ...]:
    """fill, removal and unit: those of the explainers, which nothing else may contradict."""
    defaults = {"fill": 0.0, "removal": "mask", "unit": "word"}
    found = {}
    for name, default in defaults.items():
        own = getattr(explainers[0], name) if explainers else None
        if None not in (own, given[name]) and own != given[name]:
            raise ValueError(
                f"{name} is {given[name]!r}, but the explainer was trained with {own!r}: leave it "
                "out"
            )
        found[name] = next(v for v in (own, given[name], default) if v is not None)
    return tuple(found.values())


def _of(predictor: Any) -> list[str]:
    """The methods that "all" stands for."""
    left_out = set(attributions.NOT_IN_ALL)
    if not hasattr(predictor.config, "grid"):
        left_out |= attributions.IMAGES_ONLY
    if not predictor.inside:
        left_out |= attributions.LOOKS_INSIDE
    else:
        left_out |= _of_others(predictor)
    return [name for name in attributions.METHODS if name not in left_out]


def _of_others(predictor: Any) -> frozenset[str]:
    """The methods that look inside networks of another kind than the predictor's."""
    if isinstance(predictor.config, ViTConfig | BertConfig):
        return attributions.CONVOLUTIONS_ONLY
    if hasattr(predictor.config, "grid"):
        return attributions.TRANSFORMERS_ONLY
    return attributions.CONVOLUTIONS_ONLY | attributions.TRANSFORMERS_ONLY


def _expand(given: Sequence[Given], predictor: Any) -> list[Given]:
    """The list with "all" in the place of every method that the predictor has; none twice."""
    every = _of(predictor)
    named = [one for one in given if one not in every] if "all" in given else given
    return [*(every if "all" in given else []), *(one for one in named if one != "all")]
