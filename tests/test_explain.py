"""The public face: what goes in, what comes out, and what is refused."""

import dataclasses
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fex_jax import explain, scenes
from fex_jax.host import black_box, host
from fex_jax.models.policy import functional_policy
from fex_jax.models.unet import UNetConfig
from fex_jax.removal import Removal
from fex_jax.targets import PREDICTED
from tests.conftest import random_checkpoint, random_params

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def explainer(export):
    return explain.load(export)


def test_maps_equal_the_policy(explainer, predictor):
    """Breaks if weights, preprocessing or classes are mixed up between training and explaining."""
    result = explainer(PIXELS)
    _, bind = functional_policy(explainer.backbone, 10)
    images = predictor.preprocessing.normalize(PIXELS)
    logits = bind(explainer.params).maps(images, result.targets[:, None])[:, 0]
    logits = logits - logits.mean(-1, keepdims=True) - 3
    np.testing.assert_allclose(result.logits.reshape(5, -1), logits, atol=1e-5)
    np.testing.assert_allclose(result.attributions, jax.nn.sigmoid(result.logits), atol=1e-6)
    assert result.attributions.shape == (5, 4, 4)
    np.testing.assert_array_equal(result.targets, result.probabilities.argmax(-1))
    np.testing.assert_allclose(result.probabilities.sum(-1), 1, rtol=1e-5)


def test_bfloat16_rounds_and_no_more():
    """Breaks if a dtype does not reach both networks, or heads, norms or softmax round, too."""
    wide, half = (explain.load("models/digits_fex", dtype=d) for d in ("float32", "bfloat16"))
    scene = "docs/scene.png"
    for options in ({}, {"refine": 10}):
        expected, found = wide([scene], top_k=2, **options), half([scene], top_k=2, **options)
        np.testing.assert_array_equal(found.targets, expected.targets)
        for name, most in (("attributions", 0.03), ("probabilities", 0.01)):
            a, b = getattr(found, name), getattr(expected, name)
            assert a.dtype == np.float32 and 0 < np.abs(a - b).max() < most, name
    with pytest.raises(ValueError, match="load: dtype is 'float16'; expected"):
        explain.load("models/digits_fex", dtype="float16")


@pytest.fixture(scope="module")
def own_backbone(explainer):
    """The same with a backbone that is not its predictor's."""
    params = jax.tree.map(lambda x: x * 1.1, explainer.params)
    return dataclasses.replace(explainer, params=params)


def compiled(explainer) -> int:
    return sum(program._cache_size() for program in explainer.programs)


@pytest.mark.parametrize("shared", [True, False])
def test_padding_does_not_matter_and_few_sizes_are_compiled(explainer, own_backbone, shared):
    """Breaks if padding leaks into the maps, every size compiles again, or warmup leaves some."""
    explainer = dataclasses.replace(explainer if shared else own_backbone)
    assert explainer.shares_backbone == shared
    explainer.warmup([1, 3], top_k=3, batch_size=4)
    programs = compiled(explainer)
    assert programs == 2  # of one picture and of four
    whole = explainer(PIXELS, top_k=3, batch_size=4)
    for count in (1, 3, 4):
        some = explainer(PIXELS[:count], top_k=3, batch_size=4)
        np.testing.assert_allclose(some.logits, whole.logits[:count], atol=2e-6)
        np.testing.assert_allclose(some.probabilities, whole.probabilities[:count], atol=1e-6)
    assert compiled(explainer) == programs


def test_warmup_of_a_black_box_leaves_the_question_alone():
    """Breaks if a black box is asked by warmup, or if what takes its answers is compiled while
    somebody waits for a first map."""
    asked = []

    def f(images):
        asked.append(len(images))
        return np.full((len(images), 2), 0.5)

    box = black_box.of(host(f, labels=["a", "b"], input=(32, 32, 3)), Removal("fill", (4, 4)))
    backbone = UNetConfig(32, 8, hidden_size=16, depth=1)
    params = random_params(functional_policy(backbone, 2)[0])
    explainer = explain.Explainer(box, backbone, params, budget=-3.0)
    explainer.warmup([1])
    assert not asked
    before = compiled(explainer)
    explainer(PIXELS[:1])
    assert asked == [1] and compiled(explainer) == before + 1


def flops(explainer, program, *arguments, **options):
    """Of a program about one picture, by XLA's account."""
    batch = PIXELS[:1].astype(np.float32)
    lowered = explainer.programs[program].lower(*explainer.weights, batch, *arguments, **options)
    return lowered.compile().cost_analysis()["flops"]


def test_a_shared_backbone_reads_a_picture_once(explainer):
    """Breaks if f's answer beside a map costs a second pass of the backbone that both share, or
    is another one; tables take the map and the answer in two programs."""
    classes = np.full((1, 1), PREDICTED, np.int32)
    assert explainer.shares_backbone
    apart = flops(explainer, 0) + flops(explainer, 1, classes, None)
    assert flops(explainer, 2, classes) < apart - 0.9 * flops(explainer, 0)
    result = explainer(PIXELS)
    np.testing.assert_allclose(result.probabilities, explainer.answers(PIXELS), atol=1e-6)
    maps = explainer.attribute(PIXELS, result.targets[:, None])
    np.testing.assert_allclose(result.logits.reshape(5, 1, -1), maps, atol=1e-5)


def test_a_map_without_a_prediction_does_not_ask(explainer, own_backbone):
    """Breaks if f is run for a map that does not need it, or the map is another one."""
    classes = np.full((1, 1), 3, np.int32)
    for each in (explainer, own_backbone):
        fresh = dataclasses.replace(each)
        result = fresh(PIXELS, targets=3, with_prediction=False)
        assert result.probabilities is None
        assert fresh.programs[0]._cache_size() == 0
        alone = flops(fresh, 2, classes, with_prediction=False)
        assert alone < 1.01 * flops(fresh, 1, classes, None)
        np.testing.assert_allclose(result.logits, each(PIXELS, targets=3).logits, atol=1e-5)


def test_every_kind_of_picture_gives_the_same_map(explainer, tmp_path):
    """Breaks if a kind of input is scaled or its axes are read differently."""
    Image.fromarray(PIXELS[0]).save(tmp_path / "image.png")
    kinds = [
        PIXELS[0],
        jnp.asarray(PIXELS[0]),
        PIXELS[0] / 255.0,
        (PIXELS[0] / 255.0).astype(np.float32),
        Image.fromarray(PIXELS[0]),
        str(tmp_path / "image.png"),
        tmp_path / "image.png",
    ]
    maps = explainer(kinds).attributions
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-5)


def test_files_that_threads_decode_keep_their_order(explainer, tmp_path):
    """Breaks if a picture that threads decode is another's, or not that of the caller's thread;
    or if another than the first damaged one is named."""
    pixels = RNG.integers(0, 256, (9, 40, 50, 3), np.uint8)
    files = [str(tmp_path / f"{i}.png") for i in range(9)]
    for file, one in zip(files, pixels, strict=True):
        Image.fromarray(one).save(file)
    expected = explainer([Image.fromarray(one) for one in pixels], batch_size=4)
    result = explainer(files, batch_size=4)
    np.testing.assert_array_equal(result.logits, expected.logits)
    np.testing.assert_array_equal(result.probabilities, expected.probabilities)
    for i in (8, 6):
        pathlib.Path(files[i]).write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"^image 6 \(.*6.png\) cannot be read"):
        explainer(files, batch_size=4)


def test_other_sizes_are_preprocessed(explainer):
    """Breaks if an array of another size is not resized as its picture would be."""
    large = RNG.integers(0, 256, (50, 70, 3), np.uint8)
    maps = explainer([large, Image.fromarray(large)]).attributions
    np.testing.assert_array_equal(maps[0], maps[1])


def test_picture_is_what_the_predictor_sees(explainer, predictor):
    """Breaks if maps are laid over another crop than the one they explain."""
    large = Image.fromarray(RNG.integers(0, 256, (50, 70, 3), np.uint8))
    np.testing.assert_array_equal(explainer.picture(large), predictor.preprocessing.resize(large))
    np.testing.assert_array_equal(explainer.picture(PIXELS[0]), PIXELS[0])


def test_targets(explainer):
    """Breaks if a class given by number, label or rank is not the one explained."""
    top = explainer(PIXELS, top_k=3)
    assert top.attributions.shape == (5, 3, 4, 4)
    np.testing.assert_array_equal(top.targets, np.argsort(-top.probabilities)[:, :3])
    given = explainer(PIXELS, targets=top.targets[:, 1])
    np.testing.assert_allclose(given.logits, top.logits[:, 1], atol=1e-5)
    by_label = explainer(PIXELS[:2], targets="class 4")
    np.testing.assert_array_equal(by_label.targets, [4, 4])
    np.testing.assert_allclose(by_label.logits, explainer(PIXELS[:2], targets=[4, 4]).logits)


def test_of_two_classes_one_map_is_the_other_mirrored():
    """Breaks if the class that f does not name gets the map that hardly learned."""
    predictor = random_checkpoint(num_classes=2)
    init, _ = functional_policy(predictor.config, 2)
    params = random_params(init)
    two = explain.Explainer(predictor, predictor.config, params, budget=-3.0)
    for refine in (0, 8):
        result = two(PIXELS, top_k=2, refine=refine)
        np.testing.assert_allclose(result.logits.sum(1), -6, atol=1e-4)
        named = two(PIXELS, targets=result.targets[:, 0], refine=refine)
        np.testing.assert_allclose(named.logits, result.logits[:, 0], atol=1e-4)
    alone = two.maps(params, PIXELS, two(PIXELS).targets[:, None])[:, 0]
    np.testing.assert_allclose(two(PIXELS).logits.reshape(5, -1), alone, atol=1e-4)


def test_refining_asks_the_predictor_about_each_class(explainer):
    """Breaks if queries change nothing, are about another class, or depend on the batch."""
    both = explainer(PIXELS, top_k=2, refine=16)
    plain = explainer(PIXELS, top_k=2)
    np.testing.assert_array_equal(both.targets, plain.targets)
    assert np.abs(both.logits - plain.logits).max() > 1e-2
    np.testing.assert_allclose(both.logits.std((-1, -2)), plain.logits.std((-1, -2)), rtol=1e-3)
    alone = explainer(PIXELS[1], targets=both.targets[1, 1], refine=16, batch_size=1)
    np.testing.assert_allclose(alone.logits[0], both.logits[1, 1], atol=1e-3)


def test_pixel_resolution(explainer):
    """Breaks if an upsampled map is not the size of the input, or is turned or shifted."""
    patch, pixel = explainer(PIXELS), explainer(PIXELS, resolution="pixel")
    assert pixel.attributions.shape == (5, 32, 32)
    corners = np.ix_(range(5), [0, -1], [0, -1])
    np.testing.assert_allclose(pixel.attributions[corners], patch.attributions[corners], rtol=1e-5)
    assert explainer(PIXELS, top_k=2, resolution="pixel").attributions.shape == (5, 2, 32, 32)


def broken(**changes):
    images = [image / 255.0 for image in PIXELS]
    images[3] = changes["image"]
    return images


@pytest.mark.parametrize(
    "image, message",
    [
        (np.full((32, 32, 3), np.nan), "image 3 holds NaN"),
        (PIXELS[0].astype(np.float32), r"image 3 has floats from 0 to 255; expected \[0, 1\]"),
        (PIXELS[0] / 127.5 - 1, "image 3 has floats from -1"),
        (PIXELS[0].astype(np.int64), "image 3 has dtype int64"),
        (PIXELS[0].transpose(2, 0, 1), r"image 3 has shape \(3, 32, 32\)"),
        (PIXELS[0, ..., :2], r"image 3 has shape \(32, 32, 2\)"),
        ("no_such_file.jpg", "no_such_file.jpg.*no such file"),
    ],
    ids=["nan", "unscaled", "normalised", "integers", "channels first", "two channels", "missing"],
)
def test_a_bad_picture_is_named(explainer, image, message):
    """Breaks if a wrong picture gives a map, or an error that does not name it."""
    with pytest.raises(ValueError, match=message):
        explainer(broken(image=image))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"images": []}, "the batch is empty"),
        ({"images": np.zeros((0, 32, 32, 3), np.uint8)}, "the batch is empty"),
        ({"images": PIXELS[0, 0, 0]}, r"shape \(3,\) is no image"),
        ({"targets": 10}, "class 10 is out of range; expected 0 to 9"),
        ({"targets": [0, 1, 2, 3, -1]}, "class -1 is out of range"),
        ({"targets": "dog"}, "class 'dog' is unknown; classes: class 0"),
        ({"targets": [1, 2]}, "2 targets for 5 images"),
        ({"targets": 1.5}, "neither a class number nor a label"),
        ({"top_k": 11}, "top_k is 11; expected an integer from 1 to 10"),
        ({"top_k": 2, "targets": 1}, "no targets beside it"),
        ({"resolution": "full"}, "expected one of 'patch', 'pixel'"),
        ({"with_prediction": False}, "with_prediction is False; expected targets"),
        ({"batch_size": 0}, "batch_size is 0; expected an integer from 1"),
        ({"refine": 7}, "refining takes 7 queries; expected an even number from 8 on"),
    ],
)
def test_wrong_arguments_are_refused(explainer, arguments, message):
    """Breaks if a wrong argument reaches JAX or is quietly ignored."""
    with pytest.raises(ValueError, match=message):
        explainer(**{"images": PIXELS} | arguments)


def test_a_corrupt_file_is_named(explainer, tmp_path):
    """Breaks if half a JPEG is explained as if it were whole."""
    Image.fromarray(PIXELS[0]).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cut.jpg.*cannot be read"):
        explainer(tmp_path / "cut.jpg")


def test_the_shipped_explainer_finds_the_digits():
    """Breaks if models/digits_fex no longer loads, or its maps are not where the digits are."""
    shipped = explain.load(pathlib.Path(__file__).parent.parent / "models" / "digits_fex")
    objects = scenes.split_objects(scenes.digits(), "test")
    drawn = [scenes.draw(objects, scenes.Layout(), 2, index) for index in range(32)]
    maps = shipped(np.stack([scene.image for scene in drawn]), resolution="pixel").attributions
    on_digit = np.stack([scene.segmentation > 0 for scene in drawn])
    inside, outside = (np.mean(maps, (1, 2), where=where) for where in (on_digit, ~on_digit))
    assert (inside > 1.5 * outside).all()


def test_import_is_light():
    """Breaks if explaining needs TensorFlow, distrax, Orbax or transformers in memory."""
    script = (
        "import sys, fex_jax.explain; heavy = {'tensorflow', 'distrax', 'orbax', 'transformers', "
        "'torch', 'matplotlib'}; print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
