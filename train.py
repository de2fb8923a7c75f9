"""Trains an explainer: FEX, or with the preset `:fastshap`, `:l2x` or `:cortx` one of these.

    python train.py --config=configs/digit_scenes.py --workdir=runs/digits

Any setting can be overridden: `--config.batch_size=64`. The same command run again continues from
the last checkpoint; of a run that diverged, with a lower `--config.optimizer.learning_rate`. The
result, `<workdir>/export`, is opened by `fex_jax.load`. In a notebook: `fex_jax.fit`. A black box
is `--config=configs/black_box.py`.
"""

import pathlib
from typing import Any

from fex_jax.errors import in_a_line

with in_a_line():
    from absl import app, flags, logging
    from ml_collections import config_flags

    from fex_jax import checks, finding, settings, usage

_IN_HELP = (
    "data", "predictor", "policy", "policy_backbone", "map_head", "batch_size", "epochs", "seed",
    "dtype", "optimizer", "objective", "id_expo", "text", "table", "removal", "checkpoint",
    "mesh", "distributed",
)  # fmt: skip
_ROWS = 64  # of a table, on which the explainer is measured at the end


@in_a_line()
def main(_: list[str]) -> None:
    """Trains; JAX is imported when the settings are right, and TensorFlow when f is there."""
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file
    given = flags.FLAGS
    settings.check(given.config)
    settings.check_data(given.config)
    finding.of_config(given.config)
    checks.folder(given.workdir, "workdir")
    import jax

    from fex_jax import compiled, sharding
    from fex_jax.training.opening import open_predictor

    compiled.keep()
    with sharding.ending_together():
        sharding.connect(**given.config.distributed)
        if given.config.method == "id_expo":
            from fex_jax.training import joint, joint_tables

            kind = joint_tables if given.config.policy == "mlp" else joint
            kind.train(given.config, pathlib.Path(given.workdir))
            return
        predictor = open_predictor(given.config)
        from fex_jax.training.explainer import train

        workdir = pathlib.Path(given.workdir)
        train(given.config, workdir, predictor, queries=given.queries)
        if jax.process_index() == 0:
            if given.config.policy == "mlp":
                _say_worth(given.config, workdir, predictor, given.queries)
            print(f"wrote {given.workdir}: fex_jax.load opens it, eval.py scores it")


def _say_worth(config: Any, workdir: pathlib.Path, f: Any, queries: int | None = None) -> None:
    """Of tables: what the end of `fex_jax.fit` says, on rows of the evaluation split."""
    from fex_jax import explain, feeding
    from fex_jax.training import fit

    explainer = explain.load(workdir, f)
    box = explainer.predictor
    source = feeding.open_split(box, config)
    fit.finish(explainer, source.split(_ROWS)[0], config, workdir, f, queries)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "An experiment of configs/; required.")
    flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs and the export; required.")
    flags.DEFINE_integer("queries", None, "Answers of a black box that the run may ask for.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=usage.parser(__doc__, _IN_HELP))
