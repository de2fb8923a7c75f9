"""Every block of Python in the documents runs as it is printed, page by page."""

import contextlib
import functools
import inspect
import os
import pathlib
import re
import runpy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fex_jax
from fex_jax import explain, host
from fex_jax.training import fit as fitting
from tests import tiny_text
from tests.host.test_huggingface import text_pipeline
from tests.host.test_opening import network_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("FEX_FULL_SIZE"))
# A block, and the comment before one that takes minutes.
BLOCK = re.compile(r"(<!-- slow -->\n)?```(?:python|py)\n(.*?)```", re.S)
VIT = "google/vit-base-patch16-224"
BERT = "distilbert-base-uncased-finetuned-sst-2-english"
STARTS = "docs/paths.md"  # its blocks need nothing of each other: test_paths.py
# What is not run here, by a line of it, and why.
NOT_RUN = {
    "import quantus": "runs in test_tutorials.py, where Quantus is installed",
    "COUNT, GPUS, COMMAND = ": "starts training on a cluster of Ray",
    "ray.data.read_binary_files(": "reads with a cluster; tests/batch/test_ray.py calls the same",
    "from pyspark.sql import SparkSession": "takes Spark, which takes Java",
}
# Pictures of another size than printed: a test has no time for those.
SMALL = {"input=(224, 224, 3)": "input=(32, 32, 3)"}


def pages() -> list[pathlib.Path]:
    """README.md and the pages of docs that have blocks."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if BLOCK.search(page.read_text())]


def blocks(page: pathlib.Path) -> list[str]:
    """A page's blocks that are to run, in their order; those that train only with FEX_FULL_SIZE."""
    return [
        code
        for slow, code in BLOCK.findall(page.read_text())
        if (FULL or not slow) and not any(line in code for line in NOT_RUN)
    ]


def logistic(images: np.ndarray) -> np.ndarray:
    """uint8 [B, H, W, 3] → [B, 2]: how bright the upper left corner is."""
    bright = images[:, :8, :8].mean((1, 2, 3)) / 255
    return np.stack([1 - bright, bright], -1)


def draw_pictures() -> None:
    """Twenty pictures without classes."""
    pathlib.Path("pictures").mkdir()
    drawn = np.random.default_rng(0).integers(0, 256, (20, 40, 48, 3), np.uint8)
    for name, picture in zip(["one", *map(str, range(19))], drawn, strict=True):
        Image.fromarray(picture).save(f"pictures/{name}.jpg")


def write_onnx() -> None:
    """model.onnx, the logits [B, 2] of float pixels [B, 3, 32, 32], and labels.txt."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(0, 0.1, (3 * 32 * 32, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 2])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), "model.onnx")
    pathlib.Path("labels.txt").write_text("cat\ndog\n")


def write_vit(folder: str) -> None:
    """A tiny ViT as transformers writes it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, num_labels=3,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def write_bert(folder: str) -> None:
    """A tiny DistilBERT as transformers writes it."""
    values = {"vocab_size": len(tiny_text.SPECIAL) + len(tiny_text.WORDS), "n_layers": 1,
              "dim": 16, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64}  # fmt: skip
    tiny_text.torch_model(folder, "DistilBert", "ForSequenceClassification", **values)


def quick(fit: Callable, f: Any, data: Any, **options: Any) -> explain.Explainer:
    """`fit` for an epoch, without a probe, with a tiny ViT to look at the pictures of an ONNX file.

    An f of `fex_jax.host` is asked about the pictures alone: to train takes ten seconds each time.
    """
    inspect.signature(fit).bind(f, data, **options)
    if isinstance(f, host.HostPredictor) and f.features is None:
        asked = fex_jax.attribute("random", f, sorted(pathlib.Path(data).iterdir())[:4])
        assert asked.probabilities.shape == (4, len(f.labels))
        return explain.load("models/digits_fex")
    options = {"epochs": 1, "batch_size": 4} | options
    if isinstance(f, str) and f.endswith(".onnx"):
        write_vit("reader")
        fixed = {"removal.kind": "mean", "removal.softness": 0.0}
        options |= {"backbone": "reader", "settings": fixed}
    return fit(f, data, **options)


def saying(words: str) -> Callable:
    """A page that needs nothing and prints these words."""

    @contextlib.contextmanager
    def page(out) -> Iterator[dict]:
        yield {}
        assert words in out()

    return page


@contextlib.contextmanager
def readme(out) -> Iterator[dict]:
    """A classifier of either kind where its name on the hub leads here, pictures, and reviews."""
    draw_pictures()
    write_onnx()
    write_vit(VIT)
    write_bert(BERT)
    rows = [f"The film was {x} and {y}." for x in ("good", "bad", "fun") for y in "abcdefgh"]
    pathlib.Path("reviews.csv").write_text("\n".join(["text", *rows]))
    yield {"function": logistic}
    said = out()
    assert re.findall(r"^\d$", said, re.M) == ["6", "8"]
    assert "A dull plot, saved by a great cast." in re.sub(r"\x1b\[[\d;]*m|\*", "", said)
    for run in ("vit", "box"):
        assert fex_jax.load(f"runs/{run}")("pictures/one.jpg").attributions.shape == (1, 4, 4)


@contextlib.contextmanager
def tables(out) -> Iterator[dict]:
    """A regression of three columns of a data frame."""
    pd = pytest.importorskip("pandas")
    ensemble = pytest.importorskip("sklearn.ensemble")
    for library in ("matplotlib", "shap"):
        pytest.importorskip(library)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(size=60), "b": rng.normal(size=60), "c": rng.integers(0, 3, 60)}
    )
    target = frame["a"] > frame["c"] - 1
    given = {
        "model": ensemble.GradientBoostingClassifier(n_estimators=5).fit(frame, target),
        "frame": frame,
    }
    yield given
    found = given["found"]
    assert found.attributions.index.equals(frame.index) and list(found.attributions) == list("abc")
    total = found.base_values + found.attributions.sum(axis=1)
    np.testing.assert_allclose(total, found.predictions, rtol=1e-4, atol=1e-4)
    for name in ("bar", "beeswarm", "first"):
        Image.open(f"{name}.png").verify()


@contextlib.contextmanager
def black_boxes(out) -> Iterator[dict]:
    """Pictures, an ONNX file, functions, objects of libraries, and a pipeline in a file."""
    joblib = pytest.importorskip("joblib")
    pipeline = pytest.importorskip("sklearn.pipeline")
    pytest.importorskip("skimage")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    draw_pictures()
    write_onnx()
    mood = pipeline.make_pipeline(CountVectorizer(), LogisticRegression())
    joblib.dump(mood.fit(["good fun", "great", "bad plot", "dull"], [1, 1, 0, 0]), "mood.joblib")
    rng = np.random.default_rng(0)

    def classify(series: np.ndarray) -> np.ndarray:
        tail = 1 / (1 + np.exp(-series[:, 110:].mean(-1)))  # the last of twelve features
        return np.stack([1 - tail, tail], -1)

    given = {
        "call": logistic,
        "pictures": rng.integers(0, 256, (2, 32, 32, 3), np.uint8),
        "classify": classify,
        "series": rng.normal(size=(40, 120)).astype(np.float32),
        "pipeline": text_pipeline(pathlib.Path())[0],
        "session": network_of("onnx")[0],
        "network": network_of("keras")[0],
        "module": network_of("torch_module")[0],
    }
    yield given
    assert given["film"][0].words == ("a", "good", "film")
    for name in ("in_onnx", "in_keras", "in_torch"):
        assert len(given[name].labels) == 3
    good, bad = given["mood"]["f"](["good fun", "bad plot"])[:, 1]
    assert bad < 0.5 < good
    np.testing.assert_allclose(given["found"].attributions[:, :-1], 0, atol=1e-5)
    assert (np.abs(given["found"].attributions[:, -1]) > 1e-3).all()


@contextlib.contextmanager
def attributions(out) -> Iterator[dict]:
    given: dict = {}
    yield given
    assert given["result"].attributions.shape == (1, 8, 8)
    import jax

    checkpoint = given["checkpoint"]
    pixels = np.asarray(Image.open("docs/scene.png").convert("RGB").resize((64, 64)))[None]
    images = checkpoint.preprocessing.normalize(pixels)
    maps = given["explain"](checkpoint.params, pixels, np.array([6]), jax.random.key(0))
    assert maps.shape == (1, 64) and np.isfinite(maps).all()
    own = fex_jax.attribute(given["brightness"], checkpoint, pixels).attributions
    expected = images.reshape(8, 8, 8, 8, 3).sum((1, 3, 4))
    np.testing.assert_allclose(own[0], expected, rtol=1e-4, atol=1e-5)


@contextlib.contextmanager
def serving(out) -> Iterator[dict]:
    for package in ("onnx", "onnxruntime", "starlette", "uvicorn"):
        pytest.importorskip(package)
    given: dict = {}
    try:
        yield given
    finally:
        if "server" in given:
            with given["server"] as server:
                server.kill()
    assert np.shape(given["explanation"]["classes"][0]["attributions"]) == (8, 8)
    assert given["attributions"].shape == (1, 8, 8) and pathlib.Path("shared").is_dir()


# What each page takes to be there already, and what has to have come of it.
PAGES = {
    "README.md": readme,
    "docs/index.md": saying("[[6 8]] (1, 2, 8, 8)"),
    "docs/tables.md": tables,
    "docs/black_boxes.md": black_boxes,
    "docs/attributions.md": attributions,
    "docs/serving.md": serving,
    "docs/tutorials/picture.md": saying("['6', '8']"),
    "docs/tutorials/text.md": saying("This film is"),
    "docs/tutorials/callable.md": saying("(3, "),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_printed(page, tmp_path, monkeypatch, capsys):
    """Breaks if what a reader copies does not run, in the order of the page.

    `fit` is the real one, of one epoch where the page says nothing else; see `quick`.
    """
    for folder in ("docs", "models"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)  # pages write into the current folder
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the server
    if not page.startswith("docs/tutorials"):
        monkeypatch.setattr(fitting, "compare", lambda *_: "")  # tests/training has it
        monkeypatch.setattr(fex_jax, "fit", functools.partial(quick, fex_jax.fit), raising=False)
    with PAGES[page](lambda: capsys.readouterr().out) as given:
        for code in blocks(ROOT / page):
            for printed, small in SMALL.items():
                code = code.replace(printed, small)
            name = re.match(r"# (\w+)\.py\n", code)
            if name:  # a file of its own
                pathlib.Path(f"{name[1]}.py").write_text(code)
                given[name[1]] = runpy.run_path(f"{name[1]}.py")
            else:
                exec(compile(code, page, "exec"), given)


def test_every_page_is_run():
    """Breaks if a page with blocks is written and nobody runs them, or an exception is gone."""
    texts = {page.relative_to(ROOT).as_posix(): page.read_text() for page in pages()}
    code = {name: [code for _, code in BLOCK.findall(text)] for name, text in texts.items()}
    others = {
        name
        for name, found in code.items()
        if not all(any(line in one for line in NOT_RUN) for one in found)
    }
    assert others == {STARTS, *PAGES}
    everything = "".join(one for found in code.values() for one in found)
    assert [line for line in NOT_RUN if everything.count(line) != 1] == []
    for name, found in code.items():
        for one in found:
            compile(one, name, "exec")
