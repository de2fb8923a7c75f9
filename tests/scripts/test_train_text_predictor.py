"""The script that trains text classifiers, shrunk: a vocabulary, a BERT, a directory."""

import re

import numpy as np

from fex_jax import predictors, pretrained, tokens
from tests import commands


def test_a_classifier_from_scratch(tmp_path, capsys):
    """Breaks if the script, its saved directory, or masking during training stops working."""
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for _ in range(160):
        words = rng.choice(["film", "plot", "the", "a", "story"], 6)
        label = int(rng.integers(2))
        words[rng.integers(6)] = ("awful", "great")[label]
        lines.append(f"{' '.join(words)},{('no', 'yes')[label]}")
    (tmp_path / "texts.csv").write_text("\n".join(lines) + "\n")
    end = commands.run(
        "scripts/train_text_predictor.py",
        f"--config={commands.ROOT}/configs/bert_sst2.py", "--config.data.name=texts",
        f"--config.data.path={tmp_path}/texts.csv", "--config.data.eval_split=test",
        f"--output={tmp_path}/model", "--max_length=16", "--vocabulary=60", "--width=32",
        "--layers=1", "--epochs=30", "--batch_size=32", "--learning_rate=1e-2",
    )  # fmt: skip
    assert end is None
    found = re.findall(r"accuracy ([\d.]+), .* removed ([\d.]+)", capsys.readouterr().out)
    (accuracy, removed), *_ = found
    assert float(accuracy) > 0.9 and float(removed) > 0.6
    model = pretrained.load(str(tmp_path / "model"))
    assert model.labels == ("no", "yes")
    (group,) = tokens.encode(["the great film", "awful story"], model.tokenizer, 16)
    f = predictors.bert(model.config, model.params, 16, model.tokenizer.mask_id)
    np.testing.assert_array_equal(f.predict(group.inputs).argmax(-1), [1, 0])
