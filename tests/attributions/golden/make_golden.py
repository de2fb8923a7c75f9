"""Writes white_box.npz: scores by torch and captum, which `test_white_box` compares ours with.

The models, images and texts are those of `white_box`, from NumPy seeds, so that the scores alone
are stored. Needs torch, transformers and captum:
PYTHONPATH=.:tests:tests/attributions python tests/attributions/golden/make_golden.py
"""

import numpy as np

from tests.attributions.white_box import FAMILIES, GOLDEN, theirs, theirs_of_texts

if __name__ == "__main__":
    scores = {f"{family}/{name}": x for family in FAMILIES for name, x in theirs(family).items()}
    scores |= {f"bert/{name}": x for name, x in theirs_of_texts().items()}
    np.savez_compressed(GOLDEN, **{name: x.astype(np.float32) for name, x in scores.items()})
