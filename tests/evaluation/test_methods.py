"""Methods by name, functions of one's own, explainers: what becomes a row, and what cannot."""

import dataclasses

import jax
import pytest

from fex_jax import attributions, evaluation, explain, predictors, pretrained
from fex_jax.evaluation import methods
from fex_jax.export import save_description, save_weights
from fex_jax.models.policy import functional_policy
from fex_jax.models.unet import UNetConfig
from tests import tiny_text
from tests.conftest import random_params


def brightness(model, inputs, targets, key, *, power: int = 1):
    """A method of one's own."""
    return model.pool(inputs**power, inputs)


@pytest.fixture(scope="module")
def explainer(predictor) -> explain.Explainer:
    init, _ = functional_policy(predictor.config, 10)
    return explain.Explainer(predictor, predictor.config, random_params(init), budget=-3.0)


def choose(names, explainers, predictor, options=None, refine=0) -> list[evaluation.Method]:
    bind = predictors.from_checkpoint(predictor)
    return methods.choose(names, explainers, bind, predictor, options or {}, refine)


def test_explainers_of_one_predictor_are_scored_together(predictor, tmp_path):
    """Breaks if maps about one classifier, or with other removal, are scored on another."""
    params = random_params(functional_policy(predictor.config, 10)[0])
    shifted = jax.tree.map(lambda x: x + 1, predictor.params)
    for name, weights in (("a", predictor.params), ("b", predictor.params), ("c", shifted)):
        own = dataclasses.replace(predictor, params=weights)
        save_description(tmp_path / name, own, predictor.config, budget=-3.0)
        save_weights(tmp_path / name, params)
    a, b, c = (tmp_path / name for name in "abc")
    assert [e.dtype for e in evaluation.load_explainers([a, b], "bfloat16")] == ["bfloat16"] * 2
    with pytest.raises(ValueError, match="c explains another predictor than .*a"):
        evaluation.load_explainers([a, b, c])
    first = explain.Explainer(predictor, predictor.config, params)
    renamed = dataclasses.replace(predictor, labels=tuple(f"other {i}" for i in range(10)))
    other = dataclasses.replace(first, predictor=renamed)
    with pytest.raises(ValueError, match="b explains another predictor than a"):
        methods.check_comparable([first, other], ["a", "b"])
    filled = dataclasses.replace(first, fill=1.0)
    with pytest.raises(ValueError, match=r"b has fill=1.0, but a has 0.0"):
        methods.check_comparable([first, filled], ["a", "b"])
    half = dataclasses.replace(first, dtype="bfloat16")
    with pytest.raises(ValueError, match=r"b has dtype='bfloat16', but a has 'float32'"):
        methods.check_comparable([first, half], ["a", "b"])


def test_methods_are_chosen_by_name(predictor, explainer):
    """Breaks if "all" leaves a method out, options are lost, or a typo passes."""
    options = {"rise": {"num_queries": 100}}
    left_out = attributions.NOT_IN_ALL | attributions.CONVOLUTIONS_ONLY
    every = [name for name in attributions.METHODS if name not in left_out]
    chosen = choose(["all"], [explainer, explainer], predictor, options, refine=20)
    names = [method.name for method in chosen]
    assert names == ["fex", "fex", "fex+20", "fex+20", *every]
    found = next(method for method in chosen if method.name == "rise").settings["options"]
    assert found["num_queries"] == 100 and found["keep"] == 0.5  # a default counts, too
    chosen = choose(["all", "greedy"], [explainer], predictor)
    assert [method.name for method in chosen] == ["fex", *every, "greedy"]
    with pytest.raises(ValueError, match="method 'rises' is unknown; choose all, some of random"):
        choose(["rises"], [explainer], predictor)
    with pytest.raises(ValueError, match="options for 'rises', which is no method"):
        choose(["rise"], [], predictor, {"rises": {}})


def test_texts_are_explained_by_all_methods_but_those_of_pictures():
    """Breaks if "all" stops at a method that texts have no pixels for."""
    chosen = choose(["all"], [], tiny_text.checkpoint())
    left_out = attributions.IMAGES_ONLY | attributions.NOT_IN_ALL | attributions.CONVOLUTIONS_ONLY
    assert {m.name for m in chosen} == attributions.METHODS.keys() - left_out


def test_methods_of_ones_own(predictor):
    """Breaks if a function of one's own, by itself or by its place, is no method."""
    place = f"{__name__}:brightness"
    (chosen,) = choose([brightness, place], [], predictor, {"brightness": {"power": 3}})
    assert chosen.name == "brightness"
    assert chosen.settings == {"function": brightness, "options": {"power": 3}}
    for given, message in (
        ("no.such:method", "there is no method no.such:method: No module named 'no'"),
        (f"{__name__}:missing", "there is no method .*missing"),
        (3, "3 is no method: expected a name, a function"),
    ):
        with pytest.raises(ValueError, match=message):
            choose([given], [], predictor)

    def rise(model, inputs, targets, key):
        return inputs

    with pytest.raises(ValueError, match="'rise' is a method's name in this library"):
        choose([rise], [], predictor)


@pytest.mark.parametrize(
    "name", ["rise", "greedy", "fex", "FEX", "fex+20", "fastshap", "l2x", "cortx", "all"]
)
def test_scores_may_not_take_a_methods_name(predictor, explainer, name):
    """Breaks if someone's scores stand in a table under the name of a method that was not run."""
    rows = choose(["random"], [explainer], predictor)
    with pytest.raises(ValueError, match="is a method's name: call your scores something else"):
        methods.check_rows(rows, {name: "mine.npy"})


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 81, "a\n", "<lambda>"])
def test_rows_have_names_that_files_can_have(predictor, name):
    """Breaks if a name leads out of the folder, or cannot be written."""
    with pytest.raises(ValueError, match="cannot name a row: expected letters, digits"):
        methods.check_rows([], {name: "mine.npy"})


def test_rows_of_one_name_are_refused(predictor, explainer):
    """Breaks if one row overwrites another; explainers of one name are seeds."""
    rows = choose([brightness], [explainer, explainer], predictor)
    methods.check_rows(rows, {"mine": ""})
    for other in ("Brightness", "brightness"):
        with pytest.raises(ValueError, match="would be two rows of one name"):
            methods.check_rows(rows, {other: ""})


def test_predictors_are_compared_by_all_that_they_are():
    """Breaks if only weights count: other preprocessing or tokens are another predictor."""
    text = tiny_text.checkpoint()
    own = explain.Explainer(text, text.config, {})
    settings = dict(text.tokenizer.settings, do_lower_case=False)
    tokenizer = dataclasses.replace(text.tokenizer, settings=settings)
    other = explain.Explainer(dataclasses.replace(text, tokenizer=tokenizer), text.config, {})
    assert isinstance(other.predictor, pretrained.TextCheckpoint)
    with pytest.raises(ValueError, match="b explains another predictor than a"):
        methods.check_comparable([own, other], ["a", "b"])
    methods.check_comparable([own, own], ["a", "b"])


def test_an_explainer_is_named_by_its_method(explainer):
    """Breaks if `evaluate(["fex", ...], explainer, ...)` refuses an explainer that is a U-Net."""
    unet = dataclasses.replace(explainer, backbone=UNetConfig(32, 8))
    for name in ("fex", "fex-unet"):
        assert methods.open_predictor(unet, [name, "rise"])[1:] == ([unet], ["rise"])
    assert methods.open_predictor(explainer, ["fex"])[1] == [explainer]
