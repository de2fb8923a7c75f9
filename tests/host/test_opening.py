"""Opening by name, and what is said of names that lead nowhere."""

import json
import re

import numpy as np
import pytest

import fex_jax
from fex_jax import host

MODULE = "tests.host.black_boxes"
IMAGES = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 51, 255)])


def test_a_function_by_its_name():
    """Breaks if the name is not looked up, or a predictor of one's own is wrapped again."""
    predictor = host.open(f"{MODULE}:brightness", labels=("dark", "bright"), input=(4, 4, 3))
    np.testing.assert_allclose(predictor(IMAGES), [[1, 0], [0.8, 0.2], [0, 1]], atol=1e-6)
    assert predictor.digest == f"{MODULE}:brightness"
    texts = host.open(f"{MODULE}:Holder.count", labels=["n"], input="text", output="value")
    np.testing.assert_array_equal(texts(["ab", ""])[:, 0], [2, 0])
    np.testing.assert_allclose(host.open(f"{MODULE}:ready")(IMAGES), predictor(IMAGES))
    made = host.open(f"{MODULE}:of_labels", last="light")
    assert made.labels == ("dark", "light") and host.open(f"{MODULE}:of_labels").labels[1] == "day"


@pytest.mark.parametrize(
    ("where", "options", "message"),
    [
        ("model.pt", {}, "'model.pt' names no black box; give a file ending in .onnx, .tflite"),
        ("google/vit", {}, "'google/vit' names no black box"),
        ("a b:c", {}, "names no black box"),
        ("no_such_module:f", {}, "importing no_such_module failed: ModuleNotFoundError"),
        (f"{MODULE}:nothing", {}, f"{MODULE} has no nothing"),
        (
            f"{MODULE}:Holder.nothing",
            {},
            f"{MODULE} has no Holder.nothing",
        ),
        (f"{MODULE}:NOT_CALLABLE", {"labels": "ab", "input": (2,)}, "got int"),
        (f"{MODULE}:brightness", {}, f"{MODULE}:brightness needs labels"),
        (f"{MODULE}:brightness", {"labels": ("a", "b")}, "needs input"),
        (
            f"{MODULE}:ready",
            {"input": (2,)},
            "is a predictor already, and takes no input",
        ),
        ("http://127.0.0.1/", {}, "cannot be opened so: http() missing 2 required"),
        ("no/such.onnx", {}, "cannot read no/such.onnx: No such file"),
        ("no/such.tflite", {}, "cannot read no/such.tflite: No such file"),
    ],
)
def test_a_name_that_leads_nowhere_is_explained(where, options, message):
    """Breaks if it is a traceback from inside, or opens something."""
    if where.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    if where.endswith(".tflite"):
        pytest.importorskip("ai_edge_litert")
    with pytest.raises(ValueError, match=re.escape(message)):
        host.open(where, **options)


def test_names_of_checkpoints_are_no_black_boxes():
    """Breaks if a hub id or a folder is opened as a black box, or one is sought at the hub."""
    for name in ("google/vit-base-patch16-224", "runs/mine", "models/digits_vit", "vit", ""):
        assert not host.is_name(name)
    for name in ("a/b.ONNX", "b.tflite", "https://example.org/v1", "package.module:f"):
        assert host.is_name(name)


@pytest.mark.parametrize("given", ["{", "[1]", "mean=1"])
def test_options_that_are_no_json_object_are_named(given):
    """Breaks if a command line's options end in a traceback, or are dropped."""
    with pytest.raises(ValueError, match="predictor.options is "):
        host.parse_options(given)


def network_of(library: str):
    """An object of a library, the mean of each channel, and what its adapter needs to be told."""
    if library == "keras":
        layers = pytest.importorskip("keras").layers
        model = [layers.Input((6, 6, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()]
        return pytest.importorskip("keras").Sequential(model), {}
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    if library == "torch_module":
        return net, {"labels": ("r", "g", "b"), "input": (6, 6, 3), "output": "logits"}
    runtime, onnx = map(pytest.importorskip, ("onnxruntime", "onnx"))
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GlobalAveragePool", ["x"], ["means"]),
            onnx.helper.make_node("Flatten", ["means"], ["y"]),
        ],
        "means",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 6, 6])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session, {"output": "logits"}


@pytest.mark.parametrize("library", ["keras", "torch_module", "onnx"])
def test_an_object_of_a_library_is_opened_by_its_adapter(library):
    """Breaks if it is taken for an estimator that is not fitted, refused, or a raw error."""
    from fex_jax.training import fit

    thing, options = network_of(library)
    f = host.open(thing, **options)
    pixels = np.arange(216, dtype=np.uint8).reshape(2, 6, 6, 3)
    means = pixels.mean((1, 2)) / (1 if library == "keras" else 255)
    powers = np.exp(means - means.max(-1, keepdims=True))
    np.testing.assert_allclose(f(pixels), powers / powers.sum(-1, keepdims=True), atol=1e-5)
    _, fitted = fit._open(thing, None, {"predictor.options": json.dumps(options)})
    assert fitted.input == (6, 6, 3) and fitted.digest == f.digest
    found = fex_jax.attribute("occlusion", thing if not options else f, pixels)
    assert found.attributions.shape[0] == 2


def test_an_object_that_says_too_little_is_explained():
    """Breaks if a torch module is refused without the name of what opens it, or any object is."""
    torch = pytest.importorskip("torch")
    for call in (host.open, lambda net: fex_jax.attribute("lime", net, IMAGES)):
        with pytest.raises(
            ValueError, match=r"type Flatten cannot be opened so: .*'labels' and 'i"
        ):
            call(torch.nn.Flatten())
    with pytest.raises(ValueError, match="fex_jax.host.torch_module.torch_module takes"):
        fex_jax.fit(torch.nn.Flatten(), IMAGES)
    with pytest.raises(ValueError, match="type int is no black box that is known"):
        host.open(3)


def test_the_host_package_knows_no_jax():
    """Breaks if opening a black box needs JAX, or `fex_jax.host(call, …)` is not `host.host`."""
    import subprocess
    import sys

    code = "import sys, fex_jax.host; fex_jax.host(len, labels=['n'], input='text', output='value')"
    code += "; fex_jax.host.is_object(len); assert not {'jax', 'torch', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
