"""The script that trains text classifiers, shrunk: a vocabulary, a BERT, a directory."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np

from fex_jax import predictors, pretrained, tokens

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_classifier_from_scratch(tmp_path):
    """Breaks if the script, its saved directory, or masking during training stops working."""
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for _ in range(160):
        words = rng.choice(["film", "plot", "the", "a", "story"], 6)
        label = int(rng.integers(2))
        words[rng.integers(6)] = ("awful", "great")[label]
        lines.append(f"{' '.join(words)},{('no', 'yes')[label]}")
    (tmp_path / "texts.csv").write_text("\n".join(lines) + "\n")
    command = [
        sys.executable, str(ROOT / "scripts/train_text_predictor.py"),
        f"--config={ROOT}/configs/bert_sst2.py", "--config.data.name=texts",
        f"--config.data.path={tmp_path}/texts.csv", "--config.data.eval_split=test",
        f"--output={tmp_path}/model", "--max_length=16", "--vocabulary=60", "--width=32",
        "--layers=1", "--epochs=30", "--batch_size=32", "--learning_rate=1e-2",
    ]  # fmt: skip
    result = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    assert result.returncode == 0, result.stderr[-2000:]
    (accuracy, removed), *_ = re.findall(r"accuracy ([\d.]+), .* removed ([\d.]+)", result.stdout)
    assert float(accuracy) > 0.9 and float(removed) > 0.6
    model = pretrained.load(str(tmp_path / "model"))
    assert model.labels == ("no", "yes")
    (group,) = tokens.encode(["the great film", "awful story"], model.tokenizer, 16)
    f = predictors.bert(model.config, model.params, 16, model.tokenizer.mask_id)
    np.testing.assert_array_equal(f.predict(group.inputs).argmax(-1), [1, 0])
