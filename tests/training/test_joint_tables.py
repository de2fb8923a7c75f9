"""A classifier of tables beside an explanation: what it learns, and what it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from configs import idexpo_adult
from fex_jax import table_classifier
from fex_jax.data import table_sets
from fex_jax.table_classifier import TableClassifier
from fex_jax.training import joint_tables


def configured(explainer="lime", **others):
    """Of breast cancer, and few steps."""
    config = idexpo_adult.get_config(explainer)
    given = {"data.name": "breast_cancer", "data.path": "", "epochs": 12.0, "batch_size": 64}
    config.update_from_flattened_dict(given | others)
    return config


@pytest.mark.parametrize("explainer", ["lime", "kernel_shap"])
def test_an_explanation_is_learned_through(explainer):
    """Breaks if the regulariser does not reach f, or λ₁ = 0 teaches more than the task."""
    config = configured(explainer)
    source, labels, classes = joint_tables.open_split(config, "train")
    f = TableClassifier.of(source, labels)
    params, targets = {"f": f.init(jax.random.key(0))}, np.eye(2, dtype=np.float32)[classes[:32]]
    rows = f.steps.scaled(source.values[:32])

    def gradient(strength):
        with config.id_expo.ignore_type():  # traced: one program for both
            config.id_expo.strength = strength
        loss = joint_tables.make_loss(config, f)
        return jax.grad(loss)(params, (rows, targets), jax.random.key(0), jnp.zeros(()))

    def task(params):
        found = f.model(params["f"]).predict(f.steps(rows))
        return -(targets * jnp.log(found)).sum(-1).mean()

    def far(one, other):
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one, other)
        return max(jax.tree.leaves(moved))

    plain, tuned = map(jax.jit(gradient), (0.0, 1.0))
    assert far(plain, tuned) > 1e-3
    assert far(plain, jax.grad(task)(params)) < 1e-5


def test_a_run_ends_in_a_classifier(tmp_path):
    """Breaks if labels belong to other rows, or what is written is not what was trained."""
    config = configured()
    joint_tables.train(config, tmp_path)
    joint_tables.train(config, tmp_path)  # nothing is left to do
    with pytest.raises(ValueError, match="other settings of config.id_expo.strength "):
        joint_tables.train(configured(**{"id_expo.strength": 0.5}), tmp_path)
    f = table_classifier.open(path=str(tmp_path / "predictor"))
    frame, classes = table_sets.load("breast_cancer")
    frame, classes = (table_sets.part(part, "test") for part in (frame, classes))
    right = f(frame).argmax(-1) == classes
    assert f.labels == ("0", "1") and right.mean() > 0.9
    found, params = table_classifier.read(tmp_path / "predictor")
    accuracy = joint_tables.make_accuracy(config, found)
    assert accuracy({"f": params}, 0.0) == pytest.approx(right.mean())


def test_classes_of_ones_own_table(tmp_path):
    """Breaks if the column of the class is read by f, or another row's class is learned."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(50, 3)), columns=["a", "b", "unused"])
    frame["kind"] = np.where(frame["a"] > 0, "plus", "minus")
    path = tmp_path / "rows.csv"
    frame.to_csv(path, index=False)
    own = {"data.name": "table", "data.path": str(path)}
    config = configured(**own | {"table.label": "kind", "table.drop": "unused"})
    for split in ("train", "test"):
        source, labels, classes = joint_tables.open_split(config, split)
        assert source.columns.names == ["a", "b"] and labels == ("minus", "plus")
        np.testing.assert_array_equal(classes, source.values[:, 0] > 0)
    for label, message in (
        ("", "table.label must name the column that holds the class"),
        ("knd", "table.label is 'knd'; .* has no such column"),
        ("a", "has numbers to predict; expected two classes or more"),
    ):
        with pytest.raises(ValueError, match=message):
            joint_tables.open_split(configured(**own | {"table.label": label}), "train")
    frame.assign(kind="one", gap=[None, *"x" * 49]).to_csv(path, index=False)
    for label, message in (("kind", "has one class to predict"), ("gap", "row 0 of .* no class")):
        with pytest.raises(ValueError, match=message):
            joint_tables.open_split(configured(**own | {"table.label": label}), "train")


def test_settings_that_do_not_fit_are_named(tmp_path):
    """Breaks if a map that looks inside pictures, or a classifier that is there, is taken."""
    with pytest.raises(ValueError, match="is 'gradcam_norm1'; choose lime, kernel_shap$"):
        joint_tables.train(configured("gradcam_norm1"), tmp_path)
    with pytest.raises(ValueError, match="predictor.path is 'm.onnx'; a classifier of tables is"):
        joint_tables.train(configured(**{"predictor.path": "m.onnx"}), tmp_path)
    with pytest.raises(ValueError, match="data.name is 'digit_scenes'; of tables choose"):
        joint_tables.train(configured(**{"data.name": "digit_scenes"}), tmp_path)
    path = tmp_path / "rows.csv"
    pd.DataFrame({"a": range(20), "b": 1, "kind": [True, False] * 10}).to_csv(path, index=False)
    own = {"data.name": "table", "data.path": str(path), "table.label": "kind"}
    with pytest.raises(ValueError, match="fewer than two columns whose rows differ"):
        joint_tables.train(configured(**own), tmp_path)
