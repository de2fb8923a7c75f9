"""Learning while f is asked: the same as one after the other, but for who draws the masks."""

import json
import pathlib

import numpy as np

from fex_jax import feeding, host, settings
from fex_jax.host import Bank, black_box
from fex_jax.training.explainer import train
from tests.host.black_boxes import LABELS, brightness

PICTURES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)


def run(
    workdir, directory: str, overlap: bool, rate: float, preset: str = "contrast", bank: str = ""
) -> tuple[list[float], set]:
    """Two steps of a tiny ViT: their losses, and the questions that f was asked."""
    f = host.host(brightness, labels=LABELS, input=(32, 32, 3))
    config = settings.default(preset)
    config.update_from_flattened_dict(
        {
            "batch_size": 4, "log_every": 1, "policy": "vit", "policy_backbone.path": directory,
            "objective.num_masks": 4, "objective.num_updates": 1, "objective.num_passes": 2,
            "data.augment": False, "removal.kind": "fill", "removal.softness": 0.0,
            "optimizer.learning_rate": rate, "predictor.overlap": overlap, "predictor.bank": bank,
        }
    )  # fmt: skip
    train(config, workdir, f, feeding.open_data(black_box.of(f), PICTURES)[0])
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    removal = black_box.read(workdir / "export" / "predictor").removal
    where = {"removal": str(removal), "grid": removal.grid}
    with Bank(pathlib.Path(bank or workdir) / black_box.ANSWERS, f, **where) as kept:
        asked = {(one, mask.tobytes()) for one, mask, _ in kept.records()}
    return [json.loads(line)["loss"] for line in lines], asked


def test_masks_are_those_of_one_batch_before(predictor_directory, tmp_path):
    """Breaks if overlapped training learns something else, or draws with parameters of no time.

    Where nothing is learned, it is what one after the other gives. Where much is, the second
    batch's masks are still those of the first parameters, and f is asked of no third.
    """
    still = run(tmp_path / "still", predictor_directory, True, 0.0)
    in_turn = run(tmp_path / "in turn", predictor_directory, False, 0.0)
    np.testing.assert_allclose(still[0], in_turn[0], rtol=1e-5)
    assert still[1] == in_turn[1]
    learning = run(tmp_path / "learning", predictor_directory, True, 1.0)
    assert learning[1] == still[1]
    assert learning[0][0] == still[0][0] and learning[0][1] != still[0][1]


def test_fastshap_overlapped_is_fastshap(predictor_directory, tmp_path):
    """Breaks if FastSHAP of a black box learns something else while f answers, or learns again from
    other coalitions than those whose answers are kept.

    No policy draws its coalitions, so that it is what one after the other gives, to rounding.
    """
    at_once = run(tmp_path / "at once", predictor_directory, True, 0.01, "fastshap")
    in_turn = run(tmp_path / "in turn", predictor_directory, False, 0.01, "fastshap")
    np.testing.assert_allclose(at_once[0], in_turn[0], rtol=1e-5)
    assert at_once[0][1] != at_once[0][0]
    assert at_once[1] == in_turn[1]
    kept = str(tmp_path / "at once")
    again = run(tmp_path / "again", predictor_directory, True, 0.01, "fastshap", kept)
    np.testing.assert_allclose(again[0], at_once[0], rtol=1e-5)
    assert again[1] == at_once[1]
