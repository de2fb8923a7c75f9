"""Exported explainers: what other runtimes compute is what `Explainer` computes."""

import dataclasses
import json
import os
import resource
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from fex_jax import explain, pretrained, tokens
from fex_jax.families.convnext import ConvNextConfig
from fex_jax.families.resnet import ResNetConfig
from fex_jax.host import black_box, host
from fex_jax.models import functional
from fex_jax.models.policy import functional_policy, make_backbone
from fex_jax.models.unet import UNetConfig
from fex_jax.portable import program, resizing, stablehlo
from fex_jax.preprocessing import Preprocessing
from fex_jax.removal import Removal
from tests import tiny_text
from tests.conftest import random_checkpoint, random_params

RNG = np.random.default_rng(0)
TEXTS = ["a funny film , very good !", "dull plot ."]
LENGTH = 16


def made(predictor, backbone, **settings):
    """An explainer with random weights."""
    head = settings.get("map_head", "token")
    init, _ = functional_policy(backbone, len(predictor.labels), map_head=head)
    return explain.Explainer(predictor, backbone, random_params(init), **settings)


def of_vit(**kind):
    predictor = random_checkpoint(num_layers=2)
    config = dataclasses.replace(predictor.config, **kind)
    params = random_params(functional(type(config).classifier, config)[0])
    predictor = dataclasses.replace(predictor, config=config, params=params)
    return made(predictor, config, budget=-3.0, contrastive=True, map_head="shared")


def of_convolutions(config, own=False):
    params = random_params(functional(type(config).classifier, config)[0])
    labels = tuple(map(str, range(config.num_classes)))
    side = (config.image_size,) * 2
    predictor = pretrained.Checkpoint(config, params, labels, Preprocessing(size=side))
    if own:
        return made(predictor, config, budget=-3.0, map_head="shared")
    backbone = dataclasses.replace(make_backbone("unet", config), hidden_size=16, depth=1)
    return made(predictor, backbone, budget=-3.0)


def of_black_box(kind="blur"):
    f = host(lambda x: np.ones((len(x), 2)) / 2, labels=["a", "b"], input=(32, 32, 3))
    box = dataclasses.replace(black_box.of(f, Removal(kind, (4, 4))), f=None)
    return made(box, UNetConfig(32, 8, hidden_size=16, depth=1), budget=-3.0)


def of_texts(**settings):
    predictor = tiny_text.checkpoint("roberta", 3, num_layers=2)
    return made(predictor, predictor.config, **settings)


KINDS = {
    "vit": of_vit,
    "deit with teacher": lambda: of_vit(family="deit", distilled=True),
    "dinov2 with registers": lambda: of_vit(family="dinov2_with_registers", num_registers=2),
    "resnet": lambda: of_convolutions(ResNetConfig(32, 3, 4, (8, 12), (1, 2))),
    "resnet, its own": lambda: of_convolutions(ResNetConfig(32, 3, 4, (8, 12), (1, 2)), True),
    "convnext": lambda: of_convolutions(ConvNextConfig(32, 3, 4, (8, 12), (1, 2))),
    "black box": of_black_box,
    "black box, grey": lambda: of_black_box("fill"),
    "texts": lambda: of_texts(method="fastshap", removal="delete"),
}


def arrays(explainer, count, classes):
    """What an exported program takes of `count` things, and `Explainer`'s results, padded."""
    predictor = explainer.predictor
    given = {"classes": np.asarray(classes[:count], np.int32)}
    targets = None if classes[0] < 0 else classes[:count]
    if predictor.modality == "texts":
        split = predictor.tokenizer(TEXTS[:count], explainer.unit)
        batch = tokens.collate(split, LENGTH, predictor.tokenizer)
        found = explainer(TEXTS[:count], targets)
        scores = np.zeros((count, LENGTH))
        for row, explanation in zip(scores, found, strict=True):
            row[: len(explanation.scores)] = explanation.scores
        valid = np.arange(LENGTH) <= batch.features.max(-1, keepdims=True)
        answers = np.stack([explanation.probabilities for explanation in found])
        return given | dict(zip(("ids", "attention", "features"), batch[:3], strict=True)), (
            scores, valid, [explanation.target for explanation in found], answers,
        )  # fmt: skip
    side = predictor.preprocessing.image_size
    pixels = RNG.integers(0, 256, (count, side, side, 3), np.uint8)
    result = explainer(pixels, targets)
    valid = np.ones_like(result.attributions, bool)
    answers = result.probabilities
    return given | {"pixels": pixels}, (result.attributions, valid, result.targets, answers)


def check(found, expected):
    """Attributions, classes and probabilities of an exported program against `Explainer`'s."""
    attributions, _, targets, probabilities = found
    scores, valid, classes, answers = expected
    np.testing.assert_allclose(np.where(valid, attributions, 0), scores, atol=2e-6)
    np.testing.assert_array_equal(targets, classes)
    np.testing.assert_allclose(probabilities, answers, atol=2e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "black box"])
def test_onnx_says_what_the_explainer_says(kind, tmp_path):
    """Breaks by a primitive with a wrong counterpart, a batch that is fixed, or a class that is
    another one; and if the ONNX graph computes twice what f and the explainer share."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    explainer = KINDS[kind]()
    length = LENGTH if explainer.predictor.modality == "texts" else None
    path = explainer.export(tmp_path / "m.onnx", length=length)
    session = onnxruntime.InferenceSession(path)
    for count, classes in ((1, [1]), (2, [-1, -1])):
        given, expected = arrays(explainer, count, classes)
        check(session.run(None, given), expected)
    if kind == "vit":
        assert explainer.shares_backbone
        used = [node.op_type for node in onnx.load(path).graph.node]
        assert used.count("Softmax") == 0 and used.count("Erf") == explainer.backbone.num_layers


WITHOUT_JAX = """
import json, sys
sys.modules["jax"] = sys.modules["fex_jax"] = None  # importing either fails
import numpy as np, onnxruntime
from PIL import Image
path, picture = sys.argv[1:]
session = onnxruntime.InferenceSession(path)
said = session.get_modelmeta().custom_metadata_map
how, labels = json.loads(said["preprocessing"]), json.loads(said["labels"])
size = how["size"]["width"], how["size"]["height"]
pixels = np.asarray(Image.open(picture).convert("RGB").resize(size, how["resample"]))
maps, _, targets, _ = session.run(None, {"pixels": pixels[None], "classes": np.int32([-1])})
print(json.dumps([maps[0].tolist(), labels[targets[0]]]))
"""


def fresh(folder) -> str:
    """Python of an environment that has what a reader of an ONNX file needs, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime", "pillow"], check=True)
    return python


INSTALLS = pytest.mark.skipif(
    not os.environ.get("FEX_FULL_SIZE"), reason="installs packages: set FEX_FULL_SIZE=1"
)


@pytest.mark.parametrize("own", [False, pytest.param(True, marks=INSTALLS)])
def test_onnx_runs_where_jax_is_not(own, tmp_path):
    """Breaks if a file needs JAX, or what it says of preprocessing gives other pixels.

    JAX is hidden, or with FEX_FULL_SIZE not installed: an environment of its own takes the network.
    """
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    explainer = of_vit()
    picture = tmp_path / "picture.png"
    Image.fromarray(RNG.integers(0, 256, (50, 70, 3), np.uint8)).save(picture)
    python = fresh(tmp_path / "venv") if own else sys.executable
    command = [python, "-c", WITHOUT_JAX, explainer.export(tmp_path / "m.onnx"), picture]
    own_path = {"env": {}} if own else {}  # nothing of this one's PYTHONPATH
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **own_path)
    assert done.returncode == 0, done.stderr
    attributions, label = json.loads(done.stdout)
    result = explainer(picture)
    np.testing.assert_allclose(attributions, result.attributions[0], atol=2e-6)
    assert label == result.labels[result.targets[0]]


@pytest.mark.parametrize("kind", ["black box", "black box, grey", "texts"])
def test_stablehlo_says_what_the_explainer_says(kind, tmp_path):
    """Breaks if the program has another batch size, another order of inputs, or only one platform;
    or if the description beside it is not what it was made of."""
    explainer = KINDS[kind]()
    length = LENGTH if explainer.predictor.modality == "texts" else None
    path = explainer.export(tmp_path / "m.stablehlo", length=length)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert program.platforms == ("cpu", "cuda")
    for count in (1, 2):
        given, expected = arrays(explainer, count, [-1, -1])
        *things, classes = (given[name] for name in [*list(given)[1:], "classes"])
        check(program.call(*things, classes), expected)
    said = json.loads(path.with_suffix(".json").read_text())
    assert tuple(said["labels"]) == explainer.predictor.labels


HOW = {
    "exact": Preprocessing(size=(32, 32)),
    "cropped": Preprocessing("Bit", size=37, resample=3, do_center_crop=True, crop_size=(32, 32)),
    "bordered": Preprocessing("Bit", size=27, resample=3, do_center_crop=True, crop_size=(32, 32)),
    "as it is": Preprocessing(do_resize=False, do_center_crop=True, crop_size=(32, 32)),
}
SIZES = [(32, 32), (90, 61), (19, 23), (33, 140), (31, 64), (300, 7)]  # rows, columns


@pytest.mark.parametrize("how", HOW)
def test_files_resize_as_pillow_does(how):
    """Breaks if a file resizes by another kernel, about another centre, in another order or by
    other roundings than Pillow, or crops at another pixel."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    lowering = pytest.importorskip("fex_jax.portable.lowering")
    inputs = {"pixels": ((*program.SIDES, 3), np.uint8)}
    resizing_alone = program.Program(lambda x: (resizing.resized(x, HOW[how]),), inputs, {})
    graph = lowering.graph(resizing_alone.trace()[0], ["pixels"], ["resized"])
    opset = [onnx.helper.make_opsetid("", lowering.OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=lowering.IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    exported = resizing_alone.lowered(stablehlo.PLATFORMS)
    for rows, columns in SIZES:
        picture = picture_of(rows, columns)
        expected = HOW[how].resize(Image.fromarray(picture))[None]
        np.testing.assert_array_equal(session.run(None, {"pixels": picture[None]})[0], expected)
        np.testing.assert_array_equal(exported.call(picture[None])[0], expected)


def picture_of(rows, columns):
    """Waves, and black and white pixels: Pillow clips those between its two passes."""
    y, x = np.mgrid[:rows, :columns] / 9
    waves = [127 + 100 * np.sin(x + y), 127 + 100 * np.cos(x - 2 * y)]
    return np.uint8(np.stack([*waves, np.random.default_rng(0).choice([0, 255], x.shape)], -1))


def test_exported_programs_resize(tmp_path):
    """Breaks if a file explains another picture than the explainer does of the same file, if it
    takes one size or one picture alone, or if its description asks to resize before."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    explainer = of_vit()
    predictor = dataclasses.replace(explainer.predictor, preprocessing=HOW["cropped"])
    explainer = dataclasses.replace(explainer, predictor=predictor)
    session = onnxruntime.InferenceSession(explainer.export(tmp_path / "m.onnx", resize=True))
    path = explainer.export(tmp_path / "m.stablehlo", resize=True)
    opened = jax.export.deserialize(bytearray(path.read_bytes()))
    assert opened.platforms == ("cpu", "cuda")
    said = json.loads(path.with_suffix(".json").read_text())
    assert "the file resizes" in said["pixels"]
    assert session.get_modelmeta().custom_metadata_map["pixels"] == said["pixels"]
    for rows, columns in SIZES:
        pictures = np.stack([picture_of(rows, columns), picture_of(columns, rows).swapaxes(0, 1)])
        classes = np.int32([0, 1])
        result = explainer([Image.fromarray(p) for p in pictures], classes)
        for found in (
            session.run(None, {"pixels": pictures, "classes": classes}),
            opened.call(pictures, classes),
        ):
            np.testing.assert_allclose(found[0], result.attributions, atol=1e-4)
            np.testing.assert_allclose(found[3], result.probabilities, atol=1e-4)


def test_tflite_says_what_the_explainer_says(tmp_path):
    """Breaks if LiteRT has no operator for a part of the network, or names are mixed up."""
    pytest.importorskip("litert_converter")
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    for kind in ("vit", "resnet", "resnet, its own"):
        explainer = KINDS[kind]()
        path = explainer.export(tmp_path / "m.tflite")
        run = litert.Interpreter(str(path)).get_signature_runner("explain")
        given, expected = arrays(explainer, 1, [-1])
        found = run(**given)
        names = ("attributions", "logits", "targets", "probabilities")
        check([found[name] for name in names], expected)
    with pytest.raises(ValueError, match="write .onnx"):
        KINDS["texts"]().export(tmp_path / "t.tflite")


def test_an_export_is_whole_or_not_there(tmp_path):
    """Breaks if a full disk, here a limit of a file's size, leaves half an export or loses one."""
    (tmp_path / "m.stablehlo").write_bytes(b"the one before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert stablehlo.PLATFORMS  # imported before the limit, which would cut its .pyc off
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError, match=f"{tmp_path} cannot be written to .* make room there"):
            of_vit().export(tmp_path / "m.stablehlo")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in tmp_path.iterdir()] == ["m.stablehlo"]
    assert (tmp_path / "m.stablehlo").read_bytes() == b"the one before"


def test_what_cannot_be_exported_is_refused(tmp_path):
    """Breaks if a wrong ending, folder or length ends in a traceback or an empty file."""
    with pytest.raises(ValueError, match="no format that is known; choose .onnx, .stablehlo"):
        of_vit().export(tmp_path / "m.pb")
    with pytest.raises(ValueError, match="m.onnx: /proc is no folder to write to|there is no fold"):
        of_vit().export("/proc/m.onnx")
    with pytest.raises(ValueError, match="there is no folder"):
        of_vit().export(tmp_path / "there" / "m.onnx")
    with pytest.raises(ValueError, match="length is 8; pictures have none"):
        of_vit().export(tmp_path / "m.onnx", length=8)
    with pytest.raises(ValueError, match="resize is True; texts have no size"):
        of_texts(budget=-3.0).export(tmp_path / "m.onnx", resize=True)
    with pytest.raises(ValueError, match="LiteRT's shapes are fixed, so it cannot resize"):
        of_vit().export(tmp_path / "m.tflite", resize=True)
    vit = of_vit()
    how = dataclasses.replace(vit.predictor.preprocessing, resample=Image.Resampling.LANCZOS)
    other = dataclasses.replace(vit.predictor, preprocessing=how)
    with pytest.raises(ValueError, match="resample LANCZOS, and files do BILINEAR and BICUBIC"):
        dataclasses.replace(vit, predictor=other).export(tmp_path / "m.onnx", resize=True)
    with pytest.raises(ValueError, match="length is 99; expected an integer from 3 to 32"):
        of_texts(budget=-3.0).export(tmp_path / "m.onnx", length=99)
    assert not list(tmp_path.iterdir())
