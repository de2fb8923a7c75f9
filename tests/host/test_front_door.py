"""Black boxes from training to tables, and never asked in vain."""

import json
import pathlib
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import eval as eval_script
import fex_jax
import train as train_script
from configs import black_box as config_file
from fex_jax import explain, host, settings
from fex_jax.host import Bank, HostError, black_box
from fex_jax.training import asking, counting
from fex_jax.training.explainer import train
from tests.host.small_runs import PICTURES, Box, curve, small, source_of

# ---------------------------------------------------------------- answers are kept, and counted


@pytest.fixture(scope="module")
def run(predictor_directory, tmp_path_factory):
    """A finished run of the three colours, that died in its middle and went on; its workdir."""
    workdir = tmp_path_factory.mktemp("run")
    dying = Box(dies_after=90).predictor()
    config = small(predictor_directory)
    planned = counting.of_probe(asking.candidates(config, dying), 12) + 12 * 5
    with pytest.raises(HostError, match=r"box failed .*gone; all \d+ answers are saved in .*bank"):
        train(config, workdir, dying, source_of(PICTURES, dying), planned)
    alive = Box()
    f = alive.predictor()
    train(config, workdir, f, source_of(PICTURES, f), planned)
    return SimpleNamespace(workdir=workdir, box=alive, died=dying.call, f=f, planned=planned)


def banks(workdir: pathlib.Path) -> int:
    """Answers in a workdir, by the size of its files."""
    count = 0
    for name, bytes_of_mask in (("probe.bank", 1), ("answers.bank", 2)):
        header, _, body = (workdir / name).read_bytes().partition(b"\n")
        assert json.loads(header)["predictor"] == "box"
        count += len(body) // (16 + bytes_of_mask + 4 * 3 + 4)
    return count


def test_a_crash_loses_no_answer_and_repeats_none(
    run, predictor_directory, tmp_path, capsys, monkeypatch
):
    """Breaks if a question that was answered before f died is asked again, or changes training;
    if answers to others, as of measuring the fit, are said to be training's; or if files follow an
    f that changes the working directory."""
    assert 80 < run.died.asked <= 90 and run.box.asked
    assert banks(run.workdir) == run.box.asked + run.died.asked
    whole = Box(goes="/")
    f = whole.predictor()
    monkeypatch.chdir(tmp_path)
    train(small(predictor_directory), pathlib.Path(), f, source_of(PICTURES, f))
    assert whole.asked == banks(tmp_path) == banks(run.workdir) <= run.planned
    np.testing.assert_array_equal(curve(tmp_path), curve(run.workdir))
    before = whole.asked
    train(small(predictor_directory), tmp_path, f, source_of(PICTURES, f))  # it is finished
    assert whole.asked == before
    said = (
        r"training takes up to \d+ queries; .*answers.bank holds \d+ answers, which are not asked"
    )
    assert re.search(said, capsys.readouterr().out)


def test_a_run_learns_again_from_the_answers_of_another(run, predictor_directory, tmp_path):
    """Breaks if learning again asks f, sees other masks, or does not know what is missing.

    With the settings of the run whose answers they are, every loss is as it was.
    """
    box = Box()
    f = box.predictor()

    def again(folder: str, **changes):
        given = {"predictor.bank": str(run.workdir)} | changes
        train(small(predictor_directory, **given), tmp_path / folder, f, source_of(PICTURES, f))
        return curve(tmp_path / folder)

    np.testing.assert_allclose(again("same"), curve(run.workdir), rtol=1e-6)
    faster = again("faster", **{"optimizer.learning_rate": 0.02, "objective.num_passes": 2})
    assert faster[-1] != pytest.approx(curve(run.workdir)[-1], rel=1e-3)
    assert box.asked == 0
    with pytest.raises(HostError, match="knows nothing of|has no answer to"):
        config = small(predictor_directory, **{"predictor.bank": str(run.workdir)})
        train(config, tmp_path / "other", f, source_of(PICTURES[:, ::-1].copy(), f))
    for changes, message in (
        ({"predictor.bank": str(tmp_path)}, "where no answers.bank is"),
        ({"predictor.overlap": False}, "is for the presets contrast and fastshap"),
    ):
        with pytest.raises(ValueError, match=message):
            again("wrong", **changes)
    assert box.asked == 0


def test_too_small_a_budget_is_said_before_anything_is_asked(predictor_directory, tmp_path):
    """Breaks if a run begins that cannot be paid for."""
    box = Box()
    f = box.predictor()
    with pytest.raises(ValueError, match="training takes up to 164 queries, 104 of them to choose"):
        train(small(predictor_directory), tmp_path, f, source_of(PICTURES, f), 163)
    assert box.asked == 0


def test_fit_trains_as_many_epochs_as_can_be_paid(tmp_path, capsys, predictor_directory):
    """Breaks if a budget is exceeded, or is not said."""
    box = Box()
    options = {"removal.softness": 0.0, "removal.kind": "mean", "objective.num_masks": 4}
    explainer = fex_jax.fit(
        box.predictor(digest=None), PICTURES, queries=300, backbone=predictor_directory,
        batch_size=4, settings=options,
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "of 300 are left" in said and "is not asked more" in said
    assert 150 < box.asked <= 300
    assert explainer(PICTURES[:2]).attributions.shape == (2, 4, 4)


def test_a_budget_has_room_for_the_comparison(tmp_path, capsys, predictor_directory):
    """Breaks if fit does not say what the explainer is worth though that could be asked, or if
    asking for it exceeds the budget."""
    box, needed = Box(), 8 * (2 + 54 + 16)
    options = {"removal.softness": 0.0, "removal.kind": "mean", "objective.num_masks": 4}
    fex_jax.fit(
        box.predictor(digest=None), PICTURES, queries=10 * needed, backbone=predictor_directory,
        batch_size=4, settings=options,
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "On 3 held-out items" in said and "Random in positive AUC" in said
    assert box.asked <= 10 * needed


# ---------------------------------------------------------------- the explainer, with and without f


def test_without_f_it_explains_and_refuses_queries(run):
    """Breaks if an export needs f for what it knows itself, or goes on without it."""
    away = fex_jax.load(run.workdir)
    found = away(PICTURES, top_k=2)
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, atol=1e-5)  # its own p
    at_hand = fex_jax.load(run.workdir, run.f)
    asked = at_hand(PICTURES, found.targets[:, 0])
    np.testing.assert_allclose(asked.probabilities, run.box(PICTURES), atol=1e-6)
    np.testing.assert_allclose(asked.logits, found.logits[:, 0], atol=1e-5)
    with pytest.raises(HostError, match="^this takes queries, and box is not at hand: open the"):
        away(PICTURES, refine=8, batch_size=12)
    with pytest.raises(ValueError, match="box is not at hand"):
        fex_jax.evaluate(["random"], away, PICTURES)
    described = json.loads((run.workdir / "export/predictor/black_box.json").read_text())
    assert described["labels"] == ["red", "green", "blue"] and described["digest"] == "box"
    removal = json.loads((run.workdir / "export/predictor/removal.json").read_text())
    assert (removal["kind"], removal["grid"]) == ("fill", [4, 4])
    assert removal["probe"]["shares"] == [0.9, 0.7, 0.5, 0.3, 0.1]
    assert at_hand.predictor.probe.answers == tuple(removal["probe"]["answers"])


@pytest.mark.parametrize(
    "other, message",
    [
        ({"labels": ("a", "b", "c")}, "has the labels .*but box, which is explained"),
        ({"digest": "else"}, "give host that digest if they answer alike"),
        ({"input": (16, 16, 3)}, r"has the input \(16, 16, 3\), but box, which is explained, \(32"),
    ],
)
def test_another_f_is_refused(run, other, message):
    """Breaks if a map is refined or scored by another classifier than it is of."""
    with pytest.raises(ValueError, match=message):
        fex_jax.load(run.workdir, Box().predictor(**other))


def test_what_cannot_be_explained_is_refused(tmp_path, predictor_directory):
    """Breaks if an objective of probabilities is trained on numbers of any kind."""
    for shape, message in (
        ((32, 32, 4), "takes arrays .*explained are predictors of pictures"),
        ((32,), r"ndarray of shape \[12, 32, 32, 3\] is no table"),
    ):
        with pytest.raises(ValueError, match=message):
            fex_jax.fit(Box().predictor(input=shape), PICTURES)
    f = Box().predictor(output="value")
    config = small(predictor_directory)
    config.method, config.objective = "fastshap", settings.default("fastshap").objective
    with pytest.raises(ValueError, match="output='value', and FastSHAP learns from probabilities"):
        train(config, tmp_path, f, source_of(PICTURES, f))


def test_a_black_box_of_values(tmp_path, predictor_directory, capsys):
    """Breaks if a regression cannot be fitted, refined and compared, or a known game is another's.

    Of a sum of what each cell shows the map is Σ w (x − grey) of the cell, up to its mean and unit.
    """
    weight = np.random.default_rng(1).normal(size=(32, 32, 3))
    f = host.host(
        lambda pixels: 5e3 + 1e3 * (pixels * weight).mean((1, 2, 3)), labels=["size"],
        input=(32, 32, 3), output="value", batch_size=12, digest="sum",
    )  # fmt: skip
    config = small(predictor_directory, **{"removal.grid": 2})
    train(config, tmp_path, f, source_of(PICTURES, f))
    assert "Less what it says of nothing, f says" in capsys.readouterr().out
    explainer = explain.load(tmp_path, f)
    found = explainer(PICTURES[:2], targets="size", refine=16).attributions
    gains = weight * (PICTURES[:2].astype(float) - 127.5)
    gains = gains.reshape(2, 2, 16, 2, 16, 3).sum((2, 4, 5))
    for own, true in zip(found.reshape(2, 4), gains.reshape(2, 4), strict=True):
        assert np.corrcoef(own, true)[0, 1] > 0.99
    with pytest.raises(HostError, match="the black box is not at hand"):
        explain.load(tmp_path)(PICTURES)
    with pytest.raises(ValueError, match="this explainer does not know its answers"):
        explainer.export(tmp_path / "m.onnx")
    table = fex_jax.evaluate(["fex", "occlusion"], explainer, PICTURES[:4], batch_size=4)
    for row in table.to_dict()["methods"].values():
        assert set(row) & {"positive_auc", "insertion"} == {"insertion"}


def test_the_probe_prefers_what_f_can_stand():
    """Breaks if f is asked under a removal after which it says nothing; here of hard edges.

    f finds an edge of one pixel anywhere, and then says "edge" whatever else it sees.
    """

    def call(pixels: np.ndarray) -> np.ndarray:
        steps = np.abs(np.diff(pixels.astype(float), axis=2)).max((1, 2, 3))
        edge = 1 / (1 + np.exp(-(steps - 40) / 4))
        bright = (1 - edge) * np.clip(pixels.mean((1, 2, 3)) / 255, 0, 1)
        return np.stack([edge, bright, 1 - edge - bright], -1)

    f = host.host(call, labels=("edge", "bright", "dark"), input=(32, 32, 3), digest="edges")
    pictures = np.full((6, 32, 32, 3), 250, np.uint8)
    found = asking.candidates(settings.default(), f)
    assert len(found) == 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen, about = asking.choose(black_box.of(f), found[:4], pictures)
    assert chosen.softness >= 1 / 3 and about.at_half > 0.4


def test_the_probe_says_where_it_can_tell_nothing(capsys):
    """Breaks if f sees the mean colour alone, and a removal that keeps it is chosen for grey
    squares, or without a word where there is no other."""

    def call(pixels: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-4 * (pixels.mean((1, 2), np.float64) / 255 - 0.5)))

    f = host.host(call, labels=list("rgb"), input=(32, 32, 3), output="sigmoid", digest="colour")
    pictures = np.clip(PICTURES.astype(int) + 60, 0, 255).astype(np.uint8)
    found = {one.kind: one for one in asking.candidates(settings.default(), f) if not one.softness}
    box, names = black_box.of(f), ("fill", "mean", "blur")
    chosen, _ = asking.choose(box, [found[name] for name in names], pictures)
    said = capsys.readouterr()
    assert chosen.kind == "fill" and "WARNING" not in said.err
    rows = dict(line.split()[:2] for line in said.out.splitlines() if line.startswith("  "))
    assert rows["mean"] == rows["blur"] == "–" and rows["fill"].endswith("%")
    asking.choose(box, [found["mean"], found["blur"]], pictures)
    assert "WARNING: f says about as much of inputs without any f" in capsys.readouterr().err


# ---------------------------------------------------------------- both commands


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Pictures without classes."""
    for i, picture in enumerate(PICTURES):
        Image.fromarray(picture).resize((40, 36)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_both_commands_on_a_folder_without_classes(
    folder, tmp_path_factory, predictor_directory, monkeypatch, capsys
):
    """Breaks if train.py and eval.py cannot be pointed at a function and a folder."""
    workdir = tmp_path_factory.mktemp("commands")
    (workdir / "labels.txt").write_text("dark\nbright\n")
    name = "tests.host.black_boxes:brightness"
    config = config_file.get_config()
    own = small(predictor_directory, epochs=0.5).to_dict()
    for group in ("removal", "objective", "policy_backbone"):
        config[group].update(own[group])
    config.update_from_flattened_dict(
        {
            "predictor.path": name, "predictor.labels": str(workdir / "labels.txt"),
            "predictor.options": '{"input": [32, 32, 3]}', "data.path": str(folder),
            "batch_size": 4, "epochs": 0.5, "eval.num_images": 2, "eval.batch_size": 2,
            "attributions.rise.num_queries": 4, "attributions.lime.num_queries": 4,
            "attributions.kernel_shap.num_queries": 4, "log_every": 1, "predictor.price": 0.5,
        }
    )  # fmt: skip
    given = {"config": config, "workdir": str(workdir), "queries": 1000}
    monkeypatch.setattr(train_script.flags, "FLAGS", SimpleNamespace(**given))
    train_script.main([])
    said = capsys.readouterr()
    assert "queries at 0.5 each, " in said.out
    assert re.search(r"(\d+) answers for (\d+)\.[05]0, \d+ queries left", said.out + said.err)

    usual = {"config": None, "predictor": None, "trained": [], "scores": [], "refine": 8}
    given |= usual | {"methods": ["all"], "write_inputs": False, "queries": None}
    monkeypatch.setattr(eval_script.flags, "FLAGS", SimpleNamespace(**given))
    eval_script.main([])
    found = json.loads((workdir / "eval" / "results.json").read_text())
    methods = ["fex", "fex+8", "random", "occlusion", "rise", "lime", "kernel_shap"]
    assert list(found["methods"]) == methods
    assert found["facts"]["Removal"] == "fill grey, hard edges"
    assert found["facts"]["Predictor"].startswith(name)
    assert found["accuracy"] is None
    asked = {row: cost["queries"] for row, cost in found["efficiency"].items()}
    expected = {"fex": 0, "fex+8": 8, "random": 0, "rise": 4, "lime": 4}
    # x and each of 16 cells; nothing and all beside the coalitions
    assert asked == expected | {"occlusion": 1 + 16, "kernel_shap": 2 + 4}
    assert (workdir / "eval" / "gallery.html").is_file()
    with Image.open(workdir / "eval" / "removal.png") as drawn:
        assert drawn.size[0] > 500

    for wrong, message in (
        ({"methods": ["attlrp"]}, "attlrp looks inside the classifier, and .* only be queried"),
        ({"predictor": "tests.host.black_boxes:nothing"}, "has no nothing"),
        ({"queries": 1}, "the budget of 1 queries is spent"),
    ):
        changed = SimpleNamespace(**given | {"refine": 0} | wrong)
        changed.config = config.copy_and_resolve_references()
        changed.config.seed = 1
        changed.config.eval.num_images = 4
        monkeypatch.setattr(eval_script.flags, "FLAGS", changed)
        with pytest.raises(SystemExit, match=f"^error: .*{message}"):
            eval_script.main([])


def test_a_bank_alone_scores_methods_again(run):
    """Breaks if scoring again what was scored once asks f anything."""
    removal, before = fex_jax.load(run.workdir).predictor.removal, run.box.asked
    where = {"removal": str(removal), "grid": removal.grid}
    with Bank(run.workdir / "again.bank", run.f, **where) as bank:
        explainer = fex_jax.load(run.workdir, bank)
        first = fex_jax.evaluate(["occlusion"], explainer, PICTURES[:2], batch_size=2)
        asked = run.box.asked
        again = fex_jax.evaluate(["occlusion"], explainer, PICTURES[:2], batch_size=2)
    assert run.box.asked == asked > before
    assert first.methods == again.methods
    alone = fex_jax.evaluate("random", run.f, PICTURES[:2], batch_size=2)
    assert alone.facts["Removal"].startswith("blur") and run.box.asked > asked
