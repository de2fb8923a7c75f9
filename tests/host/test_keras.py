"""Keras models and TFLite files, against the same network by hand."""

import warnings

import numpy as np
import pytest

from fex_jax import host
from fex_jax.host import HostError
from tests.host.test_adapters import IMAGES, softmax


@pytest.fixture(scope="module")
def network():
    """A small Keras network of images, with a softmax."""
    library = pytest.importorskip("keras")
    library.utils.set_random_seed(0)
    layers = library.layers
    return library.Sequential(
        [
            layers.Input((6, 6, 3)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(4, activation="softmax"),
        ]
    )


def by_hand(network) -> np.ndarray:
    weight, bias = network.get_weights()
    return softmax((IMAGES / 255).reshape(5, -1) @ weight + bias)


def test_keras_models_and_files(network, tmp_path):
    """Breaks if dropout is on, pixels are scaled twice, or a saved file answers otherwise."""
    from fex_jax.host.keras import keras

    predictor = keras(network, labels=list("abcd"))
    np.testing.assert_allclose(predictor(IMAGES), by_hand(network), atol=1e-5)
    network.save(tmp_path / "m.keras")
    opened = host.open(tmp_path / "m.keras")
    np.testing.assert_allclose(opened(IMAGES), by_hand(network), atol=1e-5)
    assert opened.labels == ("class 0", "class 1", "class 2", "class 3")
    (tmp_path / "bad.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match="bad.keras is no model that Keras reads"):
        host.open(tmp_path / "bad.keras")


def test_keras_models_of_other_shapes():
    """Breaks if they are raw errors, or channels that come first are taken for a height of three;
    or if what is said of them is not believed."""
    library = pytest.importorskip("keras")
    from fex_jax.host.keras import keras

    layers, pixels = library.layers, library.layers.Input((6, 6, 3), name="pixels")
    flat = layers.Flatten()(pixels)
    model = library.Model(pixels, [layers.Dense(2)(flat), layers.Dense(3)(flat)], name="net")
    with pytest.raises(ValueError, match="net has 2 outputs; wanted one"):
        keras(model)
    other = layers.Input((2,))
    model = library.Model([pixels, other], layers.Concatenate()([flat, other]), name="net")
    with pytest.raises(ValueError, match="net has 2 inputs; wanted one"):
        keras(model)
    first = [layers.Input((3, 6, 6)), layers.Flatten(), layers.Dense(4, activation="softmax")]
    model = library.Sequential(first, name="net")
    with pytest.raises(ValueError, match=r"net takes \(None, 3, 6, 6\), channels first"):
        keras(model)
    with pytest.raises(ValueError, match="channels first; wanted"):
        keras(model, prepare=lambda x: x)
    turned = keras(model, input=(6, 6, 3), prepare=lambda x: x.transpose(0, 3, 1, 2) / 255)
    weight, bias = model.get_weights()
    x = (IMAGES / 255).transpose(0, 3, 1, 2).reshape(5, -1)
    np.testing.assert_allclose(turned(IMAGES), softmax(x @ weight + bias), atol=1e-5)
    model = library.Model(pixels, layers.Dense(2)(flat), name="net")
    with pytest.raises(ValueError, match=r"input is \(6, 6, 1\), but net takes \(6, 6, 3\)"):
        keras(model, input=(6, 6, 1))

    class Own(library.Model):
        def call(self, x):
            return x.mean((1, 2))

    with pytest.raises(ValueError, match="own does not say what it takes"):
        keras(Own(name="own"))
    with pytest.raises(ValueError, match="own does not say how many classes"):
        keras(Own(name="own"), input=(6, 6, 3))


def converted(network, quantised: bool, pictures: np.ndarray = IMAGES) -> bytes:
    """The network as a TFLite file, of bytes in and out where it is quantised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's converter says that it will move
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        if quantised:
            pixels = pictures.astype(np.float32)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([one[None]] for one in pixels)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        return converter.convert()


@pytest.mark.parametrize("quantised", [False, True])
def test_tflite_files(network, tmp_path, quantised):
    """Breaks if scales, zero points or the batch of one are wrong: against the float network."""
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "m.tflite").write_bytes(converted(network, quantised))
    # The network scales pixels itself.
    predictor = host.open(tmp_path / "m.tflite", scale=1.0, labels=list("abcd"), threads=2)
    assert predictor.input == (6, 6, 3) and predictor.batch_size == 1 and predictor.fixed
    found = predictor(IMAGES)
    np.testing.assert_allclose(found, by_hand(network), atol=0.03 if quantised else 1e-5)
    (tmp_path / "bad.tflite").write_bytes(b"TFL3" * 9)
    with pytest.raises(ValueError, match="bad.tflite is no network that LiteRT reads"):
        host.open(tmp_path / "bad.tflite")


@pytest.mark.parametrize("quantised", [False, True])
def test_tflite_files_of_channels_first(tmp_path, quantised):
    """Breaks if [1, 3, H, W], as PyTorch's converter writes it, is read as 3 rows of pixels."""
    pytest.importorskip("ai_edge_litert")
    layers = pytest.importorskip("keras").layers
    head = layers.Dense(4, activation="softmax")
    network = pytest.importorskip("keras").Sequential(
        [layers.Input((3, 6, 8)), layers.Rescaling(1 / 255), layers.Flatten(), head]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3)).astype(np.uint8)
    turned = pixels.transpose(0, 3, 1, 2)
    (tmp_path / "m.tflite").write_bytes(converted(network, quantised, turned))
    f = host.open(tmp_path / "m.tflite", scale=1.0)
    assert f.input == (6, 8, 3)
    weight, bias = head.get_weights()
    expected = softmax((turned / 255).reshape(5, -1) @ weight + bias)
    np.testing.assert_allclose(f(pixels), expected, atol=0.03 if quantised else 1e-5)
    with pytest.raises(ValueError, match=r"input is \(3, 6, 8\), but m.tflite takes \(6, 8, 3\)"):
        host.open(tmp_path / "m.tflite", input=(3, 6, 8))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_quantised_labels_that_are_independent_are_no_softmax(activation, tmp_path):
    """Breaks if rounding of many classes excuses any sum, or a flat softmax, each of whose 400
    probabilities is rounded up, is refused. The biases alone answer."""
    pytest.importorskip("ai_edge_litert")
    layers = pytest.importorskip("keras").layers
    head = layers.Dense(400, activation=activation)
    network = pytest.importorskip("keras").Sequential(
        [layers.Input((6, 6, 3)), layers.Rescaling(1 / 255), layers.Flatten(), head]
    )
    biases = np.zeros(400) if activation == "softmax" else np.where(np.arange(400) < 3, 2.0, -9.0)
    head.set_weights([np.random.default_rng(0).normal(0, 1e-3, (108, 400)), biases])
    (tmp_path / "m.tflite").write_bytes(converted(network, True))
    f = host.open(tmp_path / "m.tflite", scale=1.0)
    if activation == "softmax":
        assert f(IMAGES).sum(-1).max() > 1.3
        return
    with pytest.raises(HostError, match="m.tflite answers probabilities that sum to 2.6.*sigmoid"):
        f(IMAGES)
    found = host.open(tmp_path / "m.tflite", scale=1.0, output="sigmoid")(IMAGES)
    np.testing.assert_allclose(found[:, :4], [[0.88, 0.88, 0.88, 0]] * 5, atol=0.02)
