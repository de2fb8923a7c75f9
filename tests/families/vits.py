"""Image processors of tiny vision transformers."""

import json

from fex_jax.preprocessing import Preprocessing

SIDE = 28
PROCESSORS = {"vit": "ViT", "deit": "DeiT", "dinov2": "Bit", "dinov2_with_registers": "Bit"}


def preprocessing(family, side=SIDE):
    return Preprocessing.from_dict(
        {"image_processor_type": f"{PROCESSORS[family]}ImageProcessor"}
    ).with_image_size(side)


def write_preprocessor(directory, family, side=SIDE):
    values = preprocessing(family, side).to_dict()
    (directory / "preprocessor_config.json").write_text(json.dumps(values))
