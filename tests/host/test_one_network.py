"""One network as a black box of every library, trained and explained as in JAX."""

import contextlib
import warnings

import jax
import numpy as np
import pytest
from flax import traverse_util

from fex_jax import explain, feeding, host, predictors
from fex_jax.training.explainer import train
from tests.host.misbehaving import reply, serving
from tests.host.small_runs import PICTURES, curve, small, source_of

GREY = 128  # what a removed cell shows: 127.5, as f gets it


@pytest.fixture(scope="module")
def natively(predictor, tmp_path_factory):
    """The tiny ViT trained on where it is, inside JAX: its curve, its explainer, its workdir."""
    workdir = tmp_path_factory.mktemp("native")
    fill = float(predictor.preprocessing.normalize(np.full((1, 3), GREY, np.uint8)).ravel()[0])
    config = small("", **{"predictor.fill": fill})
    train(config, workdir, predictor, feeding.open_data(predictor, PICTURES)[0])
    return curve(workdir), explain.load(workdir)


def jitted(predictor):
    """uint8 pictures → probabilities, by JAX."""
    predict = jax.jit(predictors.image(predictor.config, predictor.params).predict)
    return lambda pixels: np.asarray(predict(predictor.preprocessing.normalize(pixels)))


def in_jax(predictor, tmp_path, stack):
    return host.host(jitted(predictor), labels=predictor.labels, input=(32, 32, 3), digest="jitted")


def torch_net(predictor):
    """The ViT written again, in torch: pixels [B, 3, 32, 32] → logits."""
    torch = pytest.importorskip("torch")
    config, side = predictor.config, predictor.config.patch_size
    functional, tokens = torch.nn.functional, 1 + config.num_patches

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            flat = traverse_util.flatten_dict(predictor.params, sep="/")
            for name, value in flat.items():
                self.register_buffer(name, torch.tensor(np.asarray(value)))

        def linear(self, x, name):
            return x @ getattr(self, f"{name}/kernel") + getattr(self, f"{name}/bias")

        def norm(self, x, name):
            weights = (getattr(self, f"{name}/{part}") for part in ("scale", "bias"))
            return functional.layer_norm(x, (config.hidden_size,), *weights, config.layer_norm_eps)

        def attend(self, x, name):
            query, key, value = (
                self.linear(x, f"{name}/{part}")
                .reshape(-1, tokens, config.num_heads, config.hidden_size // config.num_heads)
                .transpose(1, 2)
                for part in ("query", "key", "value")
            )
            weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
            mixed = (weights @ value).transpose(1, 2).reshape(-1, tokens, config.hidden_size)
            return self.linear(mixed, f"{name}/out")

        def forward(self, pixels):
            rows, columns = config.grid  # sizes are numbers, so that ONNX leaves the batch open
            cells = pixels.reshape(-1, 3, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
            cells = cells.reshape(-1, rows * columns, side * side * 3)
            x = self.linear(cells, "backbone/patch_embedding/projection")
            first = torch.zeros_like(x[:, :1]) + getattr(self, "backbone/cls_token")
            x = torch.cat([first, x], 1) + getattr(self, "backbone/position_embedding")
            for i in range(config.num_layers):
                block = f"backbone/blocks/{i}"
                x = x + self.attend(self.norm(x, f"{block}/norm1"), f"{block}/attention")
                inner = self.linear(self.norm(x, f"{block}/norm2"), f"{block}/mlp/fc1")
                x = x + self.linear(functional.gelu(inner), f"{block}/mlp/fc2")
            return self.linear(self.norm(x, "backbone/norm")[:, 0], "head")

    return Net().eval()


def in_torch(predictor, tmp_path, stack):
    net = torch_net(predictor)
    from fex_jax.host.torch_module import torch_module

    return torch_module(net, labels=predictor.labels, input=(32, 32, 3), mean=0.5, std=0.5)


def in_onnx(predictor, tmp_path, stack):
    net = torch_net(predictor)
    torch, path = pytest.importorskip("torch"), tmp_path / "net.onnx"
    for library in ("onnx", "onnxruntime"):
        pytest.importorskip(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(2, 3, 32, 32),), str(path), dynamo=False, input_names=["x"],
            output_names=["y"], dynamic_axes={"x": {0: "b"}, "y": {0: "b"}},
        )  # fmt: skip
    return host.open(path, labels=predictor.labels, mean=0.5, std=0.5)


def in_tflite(predictor, tmp_path, stack):
    tf, jax2tf = map(pytest.importorskip, ("tensorflow", "jax.experimental.jax2tf"))
    pytest.importorskip("ai_edge_litert")
    predict = jax2tf.convert(predictors.image(predictor.config, predictor.params).predict)
    shape = [tf.TensorSpec((1, 32, 32, 3))]  # as of most files, one picture
    graph = tf.function(predict, shape, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()])
    (tmp_path / "net.tflite").write_bytes(converter.convert())
    return host.open(tmp_path / "net.tflite", labels=predictor.labels, mean=0.5, std=0.5)


def over_http(predictor, tmp_path, stack):
    call = jitted(predictor)

    def behave(request, instances, _):
        reply(request, {"predictions": call(np.array(instances, np.uint8)).tolist()})

    server = stack.enter_context(serving(behave))
    return host.open(server.url, labels=predictor.labels, input=(32, 32, 3), digest="http")


@pytest.mark.parametrize("where", [in_jax, in_torch, in_onnx, in_tflite, over_http])
def test_one_network_wherever_it_is(where, natively, predictor, predictor_directory, tmp_path):
    """Breaks if training asks other questions of a black box than of a classifier in JAX, or a
    pass of the explainer, as it is or refined, gives other maps.

    f is the same ViT; a policy starts from its weights each time.
    """
    losses, native = natively
    with contextlib.ExitStack() as stack:
        f = where(predictor, tmp_path, stack)
        in_turn = small(predictor_directory, **{"predictor.overlap": False})
        train(in_turn, tmp_path, f, source_of(PICTURES, f))
        np.testing.assert_allclose(curve(tmp_path), losses, rtol=1e-3)
        explainer = explain.load(tmp_path, f)
        asked = [explainer(PICTURES, refine=refine, batch_size=12) for refine in (0, 8)]
    for refine, found in zip((0, 8), asked, strict=True):
        expected = native(PICTURES, refine=refine, batch_size=12)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(found.attributions, expected.attributions, atol=1e-4)
