"""FEX of any function of arrays, as series or spectra, with a function that removes their features.

    python train.py --config=configs/black_box_arrays.py --workdir=runs/series \
        --config.predictor.path=mymodel:f --config.data.path=series.npy
    python eval.py --workdir=runs/series --methods=all

f is what `fex_jax.host` made with `features=fex_jax.host.OwnMask(mask, N)`, in a module of the
working directory: a command line has no functions. series.npy holds [n, ...] numbers, of which
every fifth array is kept for eval.py. The rest is as of pictures, configs/black_box.py.
"""

import ml_collections

from configs import black_box


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = black_box.get_config(preset)
    config.data.name = "arrays"
    config.policy, config.map_head = "mlp", "token"
    config.optimizer.learning_rate = 2e-3
    return config
