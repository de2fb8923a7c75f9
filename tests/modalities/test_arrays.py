"""`fex_jax.fit` of series whose parts a function of one's own removes, and what it returns."""

import dataclasses
import itertools
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import fex_jax
from fex_jax import feeding, host
from fex_jax.host import Bank, HostError, black_box
from fex_jax.host.bank import identify

PARTS, SHAPE = 6, (12, 2)  # of a series: six parts of two moments, two channels
WEIGHTS = np.array([1.0, -2.0, 0.5, 3.0, -0.5, 1.5])
LABELS = ("still", "moving")


def series(count: int, seed: int = 0) -> np.ndarray:
    """Parts of a level each, and a little noise."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(size=(count, PARTS)).repeat(2, 1)[..., None]
    return (levels + 0.1 * rng.normal(size=(count, *SHAPE))).astype(np.float32)


def parts(things: np.ndarray) -> np.ndarray:
    """What each part adds to the log-odds of "moving", [B, 6]."""
    return WEIGHTS * things.reshape(len(things), PARTS, -1).mean(-1) * 2


def still(things: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Series whose parts that are not kept are 0."""
    return things * kept.repeat(2, -1)[..., None]


def moves(things: np.ndarray) -> np.ndarray:
    """The probability of "moving"."""
    return 1 / (1 + np.exp(-parts(things).sum(-1)))


def correlation(maps: np.ndarray, true: np.ndarray) -> float:
    """Of maps [..., 6], each less its mean over parts."""
    own, others = (x - x.mean(-1, keepdims=True) for x in (maps, true))
    return np.corrcoef(own.ravel(), others.ravel())[0, 1]


OWN = host.OwnMask(still, PARTS)
GIVEN = {"labels": LABELS, "input": SHAPE, "features": OWN}
F = host.host(moves, **GIVEN, digest="moves")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An explainer, its folder, its f, and how much f was asked while it was trained."""
    asked, folder = [], tmp_path_factory.mktemp("series")

    def call(things: np.ndarray) -> np.ndarray:
        asked.append(len(things))
        return moves(things)

    f = host.host(call, **GIVEN, digest="moves")
    given = {"queries": 150_000, "epochs": 40, "batch_size": 32}
    fixed = {"objective.num_updates": 1, "predictor.overlap": False}
    explainer = fex_jax.fit(f, series(135), workdir=folder, **given, settings=fixed)
    return SimpleNamespace(explainer=explainer, folder=folder, f=f, asked=sum(asked))


def test_maps_are_what_parts_add(trained):
    """Breaks if maps are of other parts, or are learned of answers to other things than f saw."""
    things = series(64, 1)
    found = trained.explainer(things, batch_size=8)
    assert found.attributions.shape == (64, PARTS) and found.labels == LABELS
    np.testing.assert_array_equal(found.targets, moves(things) > 0.5)
    np.testing.assert_allclose(found.probabilities[:, 1], moves(things), atol=1e-6)
    true = parts(things) * np.where(found.targets, 1, -1)[:, None]
    assert np.mean([correlation(a, b) for a, b in zip(found.logits, true, strict=True)]) > 0.95


def test_a_bank_has_what_f_said_of_what_is_kept(trained):
    """Breaks if masks or ids in a bank are of other things, or an answer was paid for twice."""
    things = {one: thing for one, thing in zip(identify(series(135)), series(135), strict=True)}
    where = trained.explainer.predictor.reads.kept_by(trained.explainer.predictor.removal)
    with (
        Bank(trained.folder / "answers.bank", trained.f, queries=0, **where) as bank,
        Bank(trained.folder / "probe.bank", trained.f, removal="as it is", grid=(1,)) as probe,
    ):
        assert len(bank) + len(probe) == trained.asked
        for one, mask, answer in itertools.islice(bank.records(), 500):
            seen = still(things[one][None], mask[None])
            np.testing.assert_allclose(answer[1:], moves(seen), atol=1e-6)


def test_one_or_many_alone_or_together(trained):
    """Breaks if a map depends on what else is explained, by which thread, or in which process."""
    explainer, things = trained.explainer, series(8, 2)
    both = explainer(things, top_k=2)
    assert both.attributions.shape == (8, 2, PARTS)
    whole = explainer(things)
    np.testing.assert_allclose(both.logits[:, 0], whole.logits, atol=1e-5)
    assert "attributions [8, 6]" in repr(whole) and "moving" in whole._repr_html_()
    one = explainer(things[3].tolist(), targets="moving")
    assert one.attributions.shape == (1, PARTS) and LABELS[one.targets[0]] == "moving"
    again = explainer(things, "moving", batch_size=1)
    np.testing.assert_array_equal(one.logits[0], again.logits[3])
    np.testing.assert_allclose(again.logits, explainer(things, "moving").logits, atol=1e-5)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(explainer, [things] * 8):
            np.testing.assert_array_equal(found.logits, whole.logits)
    sent = pickle.loads(pickle.dumps(fex_jax.load(trained.folder, F)))
    np.testing.assert_allclose(sent(things).logits, whole.logits, atol=1e-5)


def test_without_f_and_with_it_again(trained):
    """Breaks if the function that removes is lost, another's is taken, or none is told of."""
    away, things = fex_jax.load(trained.folder), series(8, 2)
    assert np.abs(away(things).probabilities[:, 1] - moves(things)).mean() < 0.2
    with pytest.raises(HostError, match="not at hand: open the explainer with fex_jax.load"):
        away(things, refine=20)
    near = fex_jax.load(trained.folder, F)
    before, after = (near(things, "moving", refine=queries).logits for queries in (0, 60))
    true = parts(things)
    assert correlation(after, true) > correlation(before, true)
    with pytest.raises(ValueError, match="has 6 features, removed by .*, but .*, 6 features, rem"):
        other = host.OwnMask(lambda x, kept: still(x, kept[:, ::-1]), PARTS)
        away.asking(host.host(moves, **GIVEN | {"features": other}, digest="moves"))
    with pytest.raises(ValueError, match="takes images, but .* arrays: give host the features"):
        plain = dataclasses.replace(F, features=None)
        away.asking(plain)


def test_methods_find_the_coefficients():
    """Breaks if what queries removes other parts than f's own features, or in other batches.

    Of a sum of parts each part's Shapley value, and LIME's coefficient, is what it adds.
    """
    given = GIVEN | {"labels": ["odds"], "output": "value"}
    f, things = host.host(lambda x: parts(x).sum(-1, keepdims=True), **given), series(5, 3)
    for method, options in (("kernel_shap", {}), ("lime", {"ridge": 0.0})):
        found = fex_jax.attribute(method, f, things, batch_size=2, **options, num_queries=64)
        np.testing.assert_allclose(found.attributions, parts(things), atol=1e-3)
    one = fex_jax.attribute("occlusion", f, things[1])
    np.testing.assert_allclose(one.attributions, parts(things[1:2]), atol=1e-5)


def test_a_file_of_onnx(trained, tmp_path):
    """Breaks if the network cannot be taken away from JAX, or reads other numbers there."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    away, things = fex_jax.load(trained.folder), series(8, 2)
    session = runtime.InferenceSession(away.export(tmp_path / "series.onnx"))
    found = session.run(None, {"values": things, "classes": np.ones(8, np.int32)})
    np.testing.assert_allclose(found[1], away(things, "moving").logits, atol=1e-4)


def test_a_table_of_methods(trained, tmp_path):
    """Breaks if explainers of arrays and methods cannot be compared, or nothing is written."""
    things, given = series(16, 4), {"workdir": tmp_path, "batch_size": 8}
    table = fex_jax.evaluate(["fex", "random"], trained.explainer, things, **given)
    fex, random = (table.methods[name]["negative_auc"]["mean"] for name in ("fex", "random"))
    assert fex > random + 0.1
    assert table.facts["Features"] == "6 features of one's own"
    table.write(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["num_inputs"] == 16


def fit(data: Any = None, settings: dict | None = None, **changes: Any) -> None:
    given = GIVEN | {"digest": "moves"} | changes
    fex_jax.fit(host.host(moves, **given), series(40) if data is None else data, settings=settings)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"features": host.OwnMask(lambda x, kept: x, PARTS)}, "mask changes nothing where no"),
        ({"features": host.OwnMask(still, 7)}, r"mask failed .* kept bool\[4, 7\]: ValueError"),
        ({"features": host.OwnMask(lambda x, kept: x[:, :3], 2)}, "wanted the same form"),
        ({"features": host.OwnMask(lambda x, k: x * k[:, None], 1)}, "num_features is 1, and a"),
        ({"data": series(40)[:, :5]}, r"float32\[40, 5, 2\]; expected .* \[B, 12, 2\]"),
        ({"data": series(40)[:0]}, r"float32\[0, 12, 2\]; expected one or more"),
        ({"data": series(40).astype(object)}, r"object\[40, 12, 2\]; expected .* numbers"),
        ({"data": [[[1.0, 2.0]], [[3.0]]]}, "the arrays are no array of numbers"),
        ({"data": np.where(np.eye(2)[0], np.inf, series(40))}, "array 0 holds NaN, inf"),
        ({"data": np.ones((40, *SHAPE))}, "all arrays are the same"),
        ({"data": "none.npy"}, "none.npy is no .npy file of numbers"),
        ({"settings": {"policy": "unet"}}, "of arrays the policy is mlp"),
        ({"settings": {"removal.kind": "blur"}}, "'blur'.*f's own function removes"),
    ],
)
def test_what_cannot_be_trained_on(changes, message):
    """Breaks if a wrong array or function is found when queries are spent, or deep inside."""
    with pytest.raises((ValueError, HostError), match=message):
        fit(**changes)


def test_too_many_numbers_and_too_few_queries():
    """Breaks if a network of gigabytes is built, or a budget is small when it is spent."""
    wide = host.OwnMask(lambda x, kept: x * kept.repeat(2**16, -1), 2)
    with pytest.raises(ValueError, match="131,072 numbers, and a network reads at most 65,536"):
        fit(np.random.default_rng(0).random((9, 2**17), np.float32), input=(2**17,), features=wide)
    with pytest.raises(ValueError, match="training takes up to .* and 10 may be asked"):
        fex_jax.fit(F, series(40), queries=10)


@pytest.mark.parametrize(
    "things, options, message",
    [
        (series(3)[0, 0], {}, r"float32\[2\]; expected one or more of numbers \[12, 2\]"),
        (["a", "b"], {}, r"<U1\[2\]; expected"),
        (series(3), {"top_k": 3}, "top_k is 3; expected"),
        (series(3), {"top_k": 1, "targets": 0}, "top_k is 1; expected no targets"),
        (series(3), {"targets": "gone"}, "class 'gone' is unknown"),
        (series(3), {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_explained(trained, things, options, message):
    """Breaks if what is wrong ends deep inside."""
    with pytest.raises(ValueError, match=message):
        trained.explainer(things, **options)


def test_what_the_commands_read(trained, tmp_path):
    """Breaks if train.py finds other arrays than eval.py leaves out, or a damaged box is opened."""
    np.save(tmp_path / "series.npy", series(11).astype(float))
    config, box = feeding.of(trained.explainer.predictor).SETTINGS("contrast"), black_box.of(F)
    config.data.path = str(tmp_path / "series.npy")
    train, test = (feeding.of(box).open_source(box, config, x).values for x in ("train", "test"))
    np.testing.assert_array_equal(test, series(11)[[4, 9]])
    np.testing.assert_array_equal(train, np.delete(series(11), [4, 9], 0))
    trained.explainer.predictor.save(tmp_path)
    save_file({"mean": np.zeros(24, np.float32)}, tmp_path / "arrays.safetensors")
    with pytest.raises(ValueError, match="holds no mean and scale of 24 numbers"):
        black_box.read(tmp_path)
