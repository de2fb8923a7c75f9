"""`fex_jax.evaluate`: what may come, what comes out, and what is refused before data are opened."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fex_jax
from fex_jax import explain, metrics
from fex_jax.evaluation import inputs, run, tasks
from fex_jax.export import save_description, save_weights
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def brightness(model, inputs, targets, key):
    """A method of one's own."""
    return model.pool(inputs, inputs)


@pytest.fixture(scope="module")
def explainer(predictor) -> explain.Explainer:
    init, _ = functional_policy(predictor.config, 10)
    return explain.Explainer(predictor, predictor.config, random_params(init), budget=-3.0)


def open_task(explainer, data, true_classes=None, limit=0) -> tasks.Task:
    """What `evaluate` scores methods on."""
    predict = tasks.make_prediction(explainer.bind, explainer.predictor.params)
    reading = tasks.Reading(metrics.FEX, 5, limit, explainer.unit, 0, "refuse")
    return inputs.open_task(
        explainer.predictor, explainer.bind, predict, data, true_classes, reading
    )


@pytest.fixture(scope="module")
def table(explainer, tmp_path_factory) -> fex_jax.evaluation.Table:
    workdir = tmp_path_factory.mktemp("table")
    options = {"rise": {"num_queries": 4}}
    methods = ["fex", "rise", brightness]
    return fex_jax.evaluate(
        methods, explainer, IMAGES, workdir=workdir, batch_size=5, options=options
    )


def test_images_in_memory(explainer, table):
    """Breaks if a notebook's three kinds of methods do not become a table of what users get."""
    assert list(table.results) == ["fex", "rise", "brightness"]
    scores = table.results["fex"][0][0].targets
    np.testing.assert_array_equal(scores, explainer(IMAGES, batch_size=5).logits.reshape(5, -1))
    printed = str(table)
    assert printed.startswith("method") and "brightness" in printed and "Predictor: vit" in printed
    found = json.loads(json.dumps(table.to_dict()))
    assert found["num_inputs"] == 5 and found["accuracy"] is None
    assert 0 <= found["methods"]["rise"]["positive_auc"]["mean"] <= 1
    assert table._repr_markdown_().count("| brightness |") == 2  # quality and cost


def test_attribute_gives_what_a_table_scores(explainer, table):
    """Breaks if a row is of another map than `fex_jax.attribute` gives, in a single bit."""
    own = {"fex": {"batch_size": 5}, "rise": {"num_queries": 4}, brightness: {}}
    for method, options in own.items():
        given = fex_jax.attribute(method, explainer, IMAGES, **options)
        scores, _ = table.results[getattr(method, "__name__", method)][0]
        np.testing.assert_array_equal(scores.targets, given.logits.reshape(5, -1))
        np.testing.assert_array_equal(given.targets, given.probabilities.argmax(-1))


def test_what_is_done_is_not_done_again(explainer, table, tmp_path, monkeypatch):
    """Breaks if a finished method runs again, or one of other inputs or classes does not."""
    asked, attribute = [], run.attribute

    def counted(method, *rest):
        asked.append(method.name)
        return attribute(method, *rest)

    monkeypatch.setattr(run, "attribute", counted)

    def again(images, **changes):
        asked.clear()
        fex_jax.evaluate("random", explainer, images, workdir=tmp_path, **changes)
        return list(asked)

    assert again(IMAGES, batch_size=5) == ["random"]
    assert again(IMAGES, batch_size=5) == []
    assert again(IMAGES, batch_size=5, true_classes=[0, 1, 2, 3, 4]) == ["random"]
    assert [file.name for file in (tmp_path / "methods").iterdir()] == ["random.npz"]


def test_pictures_and_page(table, tmp_path):
    """Breaks if a table cannot be written, or images without classes cannot be shown."""
    table.write(tmp_path / "eval", "noise", config={"own": 1})
    assert json.loads((tmp_path / "eval" / "results.json").read_text())["config"] == {"own": 1}
    for name in ("curves.png", "probabilities.png", "maps.png", "results.md", "gallery.html"):
        assert (tmp_path / "eval" / name).stat().st_size > 500


def test_a_folder_is_read_as_explain_reads_it(explainer, tmp_path):
    """Breaks if a folder's pictures or classes are mixed up; true are those of class folders."""
    for i, image in enumerate(IMAGES):
        folder = tmp_path / f"class {i % 2 + 3}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.PNG")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "a.png").write_bytes(b"no image")
    task = open_task(explainer, tmp_path)
    assert task.names == ("class 3", "class 4") and task.size == 5
    for image, label, target in zip(task.inputs, task.known, task.targets, strict=True):
        number = next(i for i in range(5) if np.array_equal(image, IMAGES[i]))
        assert label == number % 2 + 3
        assert target == explainer(IMAGES[number]).targets[0]
    assert task.accuracy == (task.known == task.targets).mean()
    Image.fromarray(IMAGES[0]).save(tmp_path / "unsorted.png")
    task = open_task(explainer, tmp_path, limit=3)
    assert task.true_classes is None and task.size == 3


def test_a_list_of_texts():
    """Breaks if texts need a file, or their classes by name are not the predictor's classes."""
    predictor = tiny_text.checkpoint()
    init, _ = functional_policy(predictor.config, 2)
    explainer = explain.Explainer(
        predictor, predictor.config, random_params(init), budget=-3.0, unit="token"
    )
    texts, known = ["a funny film", "dull plot .", "not bad"], ["class 1", "class 0", 1]
    task = open_task(explainer, texts, known)
    np.testing.assert_array_equal(task.known, [1, 0, 1])
    assert [document.text for document in task.documents] == texts
    assert len(task.documents[0].spans) == 4  # tokens, as the explainer was trained
    assert open_task(explainer, texts).true_classes is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"methods": "rises"}, "method 'rises' is unknown"),
        ({"methods": []}, "there is nothing to score"),
        ({"methods": None}, "None is no method"),
        ({"methods": ["rise"], "refine": 8}, "refine is 8, but there is no explainer"),
        ({"predictor": None}, "the predictor is of type NoneType; expected a classifier"),
        ({"workdir": 5}, "workdir is 5; expected the path of a folder"),
        ({"workdir": "/dev/null/table"}, "/dev/null/table is no folder to write to: "),
        ({"protocol": "paper"}, "protocol is 'paper'; expected one of 'fex'"),
        ({"protocol": ["fex"]}, r"protocol is \['fex'\]; expected one of"),
        ({"batch_size": 0}, "batch_size is 0; expected an integer from 1"),
        ({"batch_size": 2.0}, "batch_size is 2.0; expected an integer"),
        ({"refine": 8.0}, "refine is 8.0; expected an integer"),
        ({"refine": True}, "refine is True; expected an integer"),
        ({"limit": 2.5}, "limit is 2.5; expected an integer"),
        ({"limit": "2"}, "limit is '2'; expected an integer"),
        ({"seed": None}, "seed is None; expected an integer"),
        ({"removal": "blur"}, "removal is 'blur'; expected one of 'mask', 'delete', or none"),
        ({"fill": "grey"}, "fill is 'grey'; expected a number"),
        ({"classes_by": "order"}, "classes_by is 'order'; expected one of 'name', 'position'"),
        ({"write_inputs": 1}, "write_inputs is 1; expected true or false"),
        ({"scores": ["mine.npy"]}, r"scores is \['mine.npy'\]; expected an object"),
        ({"scores": {"mine": "no/such.npy"}}, "'mine' are to be in no/such.npy, which is no file"),
        ({"options": [1]}, r"options is \[1\]; expected an object"),
        ({"options": {"rise": 3}}, "options: rise is 3; expected an object"),
        ({"fill": 1.0}, "fill is 1.0, but the explainer was trained with 0.0: leave it out"),
        ({"scores": {"rise": "x.npy"}}, "'rise' is a method's name"),
        ({"options": {"rise": {"querys": 1}}}, "rise: .*querys"),
        ({"write_inputs": True}, "needs a workdir"),
        ({"methods": ["fastshap"]}, "'fastshap' is an explainer: pass it"),
    ],
)
def test_settings_are_checked_before_data_are_opened(explainer, changes, message):
    """Breaks if a typo is found after minutes of reading, or is not found."""

    def data():
        raise AssertionError("opened")

    with pytest.raises(ValueError, match=message):
        fex_jax.evaluate(
            **{"methods": ["fex", "rise"], "predictor": explainer, "data": data} | changes
        )


@pytest.mark.parametrize(
    "data, changes, message",
    [
        ([], {}, "there are no images to explain"),
        ("", {}, "the data is ''; expected the path of a file or a folder"),
        ("no/such/folder", {}, "no/such/folder is no folder"),
        (IMAGES, {"true_classes": [1]}, "true_classes: 1 targets for 5 images"),
        (IMAGES, {"labels": ["cat"] * 5}, "class 'cat' is unknown"),
        (IMAGES, {"protocol": "chefer"}, "protocol chefer needs true classes, but there are none"),
    ],
)
def test_wrong_data_are_named(explainer, data, changes, message):
    """Breaks if wrong data end deep inside, or are scored."""
    with pytest.raises(ValueError, match=message):
        fex_jax.evaluate("random", explainer, data, **changes)


def test_explainers_are_opened_from_where_they_are(explainer, tmp_path):
    """Breaks if a path is not opened as `load` would, or a seed takes the other's file."""
    save_description(tmp_path / "run", explainer.predictor, explainer.backbone, budget=-3.0)
    save_weights(tmp_path / "run", explainer.params)
    other = jax.tree.map(lambda x: jnp.flip(x), explainer.params)
    save_description(tmp_path / "seed", explainer.predictor, explainer.backbone, budget=-3.0)
    save_weights(tmp_path / "seed", other)
    seed = fex_jax.load(tmp_path / "seed")
    table = fex_jax.evaluate(
        ["fex", seed], tmp_path / "run", IMAGES, workdir=tmp_path / "eval", batch_size=5
    )
    first, second = (scores.targets for scores, _ in table.results["fex"])
    np.testing.assert_array_equal(first, explainer(IMAGES, batch_size=5).logits.reshape(5, -1))
    assert (
        not np.array_equal(first, second) and len(table.methods["fex"]["insertion"]["seeds"]) == 2
    )


def test_import_is_light():
    """Breaks if `import fex_jax` imports JAX, or arrays of images need TensorFlow."""
    script = (
        "import sys, fex_jax; assert not {'jax', 'numpy'} & set(sys.modules); "
        "fex_jax.evaluate; print({'tensorflow', 'distrax'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stdout + result.stderr
