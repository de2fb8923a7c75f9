"""What explains a checkpoint: a ViT of another checkpoint, as it sees what the classifier sees."""

import json

import jax
import numpy as np
import pytest

import fex_jax
from fex_jax import families, pretrained
from fex_jax.models import shapes
from fex_jax.models.vit import ViTConfig
from fex_jax.preprocessing import Preprocessing
from tests import tiny_text
from tests.conftest import random_checkpoint, random_like

PICTURES = np.random.default_rng(0).integers(0, 256, (16, 48, 48, 3), np.uint8)


def resnet():
    """A ResNet of three classes for pictures of 48 pixels, whose cells are 3 × 3."""
    config = families.of("resnet").ResNetConfig(48, 3, 4, (8,), (1,))
    params = random_like(shapes(type(config).classifier, config))
    return pretrained.Checkpoint(config, params, ("a", "b", "c"), Preprocessing(size=(48, 48)))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A ViT's directory, of other pixels, patches, classes and normalisation."""
    directory = tmp_path_factory.mktemp("vit")
    pretrained.save(directory, random_checkpoint(5, 32, 8))
    path = directory / "preprocessor_config.json"
    values = json.loads(path.read_text()) | {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.7] * 3}
    path.write_text(json.dumps(values))
    return directory


def test_a_vit_explains_a_resnet(vit, tmp_path):
    """Breaks if the ViT does not begin with its weights, reads as the ResNet, or is not opened."""
    run = tmp_path / "run"
    explainer = fex_jax.fit(resnet(), PICTURES, backbone=str(vit), workdir=run, epochs=1)
    assert isinstance(explainer.backbone, ViTConfig) and explainer.name == "fex"
    own = pretrained.load(str(vit), image_size=12)  # a patch for each of 3 × 3 cells
    jax.tree.map(
        np.testing.assert_array_equal, explainer.params["backbone"], own.params["backbone"]
    )
    model, inputs = explainer.bind(explainer.predictor.params, PICTURES[:2])
    small = jax.image.resize(PICTURES[:2].astype(np.float32), (2, 12, 12, 3), "bilinear")
    expected = (small / 255 - np.array([0.1, 0.2, 0.3])) / 0.7
    np.testing.assert_allclose(model.view(inputs), expected, atol=1e-5)

    found = fex_jax.load(run)(PICTURES[:2]).attributions
    assert found.shape == (2, 3, 3)
    np.testing.assert_array_equal(found, explainer(PICTURES[:2]).attributions)
    path = run / "export" / "explainer.json"
    said = json.loads(path.read_text())
    for looks, message in (
        (None, "they do not belong together"),
        (
            said["looks"] | {"size": {"height": 48, "width": 48}},
            "image_size of its policy is 12 and of its predictor 48: they do not belong together",
        ),
    ):
        path.write_text(json.dumps(said | {"looks": looks}))
        with pytest.raises(ValueError, match=message):
            fex_jax.load(run)


def test_what_cannot_explain(vit, tmp_path):
    """Breaks if a path is ignored, or ends in a traceback from within."""
    pretrained.save(tmp_path / "bert", tiny_text.checkpoint())
    with pytest.raises(ValueError, match="reads texts; f's inputs are images"):
        fex_jax.fit(resnet(), PICTURES, backbone=str(tmp_path / "bert"))
    texts = ["a good film , a fun plot"] * 16
    with pytest.raises(ValueError, match="bert classifier of texts is explained by its own"):
        fex_jax.fit(tiny_text.checkpoint(), texts, backbone=str(vit), batch_size=8)
