"""Scores a trained explainer, and other attribution methods beside it, on the same inputs.

    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits
    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits --methods=all

Writes results.json, results.md, curves.png, probabilities.png and gallery.html to `<workdir>/eval`,
of images also maps.png, of labelled texts top_words.png. Methods that are done are kept there:
the same command continues after an interruption. `--trained` adds other explainers (several of one
method are its seeds), `--methods=package.module:function` a method of your own, `--scores` scores
computed elsewhere, for the inputs that `--write_inputs` writes. The protocol is
`--config.eval.protocol=fex`, chefer or authors. Without --config, it is the one of training; what
the explainer was trained with (predictor, fill, removal, unit) is always its own. Of a run of
`fex_jax.fit` the items are scored that it held out, 8 to 64 of its file or folder: `--config` names
others. Of tables Shapley values are compared with true ones, contrasts by deletion and insertion,
without plots.
"""

import dataclasses
import json
import os
import pathlib
import sys

from fex_jax.errors import in_a_line, require

with in_a_line():
    import ml_collections
    from absl import app, flags, logging
    from ml_collections import config_flags

    from fex_jax import finding, host, settings, usage

_IN_HELP = (
    "data.name", "data.path", "data.column", "data.eval_split", "dtype", "seed", "text", "eval",
    "attributions",
)  # fmt: skip


def read_config(given: ml_collections.ConfigDict | None, workdir: pathlib.Path):
    """The config given, or the one that a run was trained with; or a ValueError."""
    if given is not None:
        return given
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{workdir} has no config.json: say with --config what to score it on")
    return ml_collections.ConfigDict(json.loads(path.read_text()))


@in_a_line()
def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    given, workdir = flags.FLAGS, pathlib.Path(flags.FLAGS.workdir)
    sys.path.append(os.getcwd())  # of methods of one's own
    output = workdir / "eval"
    config, scores = read_config(given.config, workdir), usage.named_paths(given.scores)
    settings.check(config)
    settings.check_data(config)
    finding.methods(given.methods)
    paths = [workdir, *given.trained]
    for path in paths:
        finding.explainer(path)
    if host.is_name(f := given.predictor or config.predictor.path):
        host.check(f)
    require("matplotlib", "jinja2")  # what is drawn at the end, after everything is measured
    from fex_jax import compiled, evaluation, feeding  # takes seconds
    from fex_jax.evaluation import fingerprint, tasks

    compiled.keep()
    with evaluation.opened(paths, config, given.predictor, given.queries) as explainers:
        predictor = explainers[0].predictor
        if not hasattr(tasks.of(predictor), "open_task"):
            print(tasks.of(predictor).evaluate(explainers[0], config, output, given.methods))
            return
        table = evaluation.evaluate(
            [*explainers, *given.methods],
            predictor,
            lambda: feeding.open_split(predictor, config),
            workdir=output,
            protocol=config.eval.protocol,
            limit=config.eval.num_images,
            batch_size=config.eval.batch_size,
            seed=config.seed,
            options=config.attributions.to_dict(),
            refine=given.refine,
            scores=scores,
            max_length=config.text.max_length,
            too_long=config.text.too_long,
            classes_by=config.eval.get("match_classes", "name"),
            write_inputs=given.write_inputs,
        )
        data, split = config.data.name, config.data.eval_split
        own = {"Data": f"{data}, {table.task.size} {split} {predictor.modality}"}
        if predictor.params:  # and so a folder
            own["Predictor"] = (
                f"{finding.folder(workdir) / 'predictor'}, {fingerprint.of(predictor)}"
            )
        table = dataclasses.replace(table, facts=table.facts | own)
        table.write(output, data, config=config.to_dict())
    print(table, f"table: {(output / 'results.md').resolve()}", sep="\n")
    if (output / "gallery.html").is_file():
        print(f"gallery: {(output / 'gallery.html').resolve()}")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
    flags.DEFINE_string("workdir", None, "The folder that train.py wrote; required.")
    flags.DEFINE_string("predictor", None, "A black box, if not the one of the run's config.")
    flags.DEFINE_integer("queries", None, "Answers that the run's bank may hold in the end.")
    flags.DEFINE_list("methods", ["random"], "Methods beside the trained ones; all for all.")
    flags.DEFINE_list("trained", [], "Further folders that train.py wrote, comma-separated.")
    flags.DEFINE_integer("refine", 0, "Also score the trained ones refined by so many queries.")
    flags.DEFINE_list("scores", [], "Scores from elsewhere, NAME=FILE.npy, comma-separated.")
    flags.DEFINE_bool("write_inputs", False, "Write the images and targets to eval/inputs.npz.")
    flags.mark_flags_as_required(["workdir"])
    app.run(main, flags_parser=usage.parser(__doc__, _IN_HELP))
