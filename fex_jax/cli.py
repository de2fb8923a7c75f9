"""fex-jax: explainers at a command line.

    fex-jax serve runs/mine
    fex-jax export runs/mine explainer.onnx
    fex-jax explain runs/mine picture.jpg
    fex-jax explain runs/mine --input=pictures --output=maps

Explainers are trained by train.py and scored by eval.py of the repository, or from Python by
fex_jax.fit and fex_jax.evaluate.
"""

import argparse
import glob
import os
import pathlib
import re
import sys
from collections.abc import Sequence

from fex_jax import escape, finding, host
from fex_jax.errors import HostError, missing, require


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults that are something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; what is wrong is said in a line, before anything heavy is imported."""
    given = _parser().parse_args([_hyphens(a) for a in arguments or sys.argv[1:]])
    try:
        _find(given)
        return given.run(given)
    except ModuleNotFoundError as error:
        print(f"error: {missing(error)}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError, HostError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("fex-jax", description=__doc__, formatter_class=style)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=_Help,
        )
        made.set_defaults(run=run)
        made.add_argument("explainer", help="a run's folder or an export")
        made.add_argument("--revision", help="of EXPLAINER as user/repo of the Hugging Face hub")
        made.add_argument("--predictor", help="of a black box, f: a file or an address")
        return made

    serve = command("serve", _serve, "a page to look at and an API, at http://127.0.0.1:8000")
    serve.add_argument(
        "--host", default="127.0.0.1", help="others than this machine's are open to all"
    )
    serve.add_argument("--port", type=_port, default=8000, help="0: any that is free")
    serve.add_argument("--name", help="of the model, in addresses; by default the folder's")
    serve.add_argument("--max-megabytes", type=_positive, default=16, help="of a request")
    serve.add_argument("--max-things", type=_positive, default=64, help="of a request")
    serve.add_argument("--max-batch", type=_positive, default=8, help="explained at a time")
    serve.add_argument("--max-waiting", type=_positive, default=256, help="others are refused")
    serve.add_argument("--max-seconds", type=_positive, default=30, help="a request has to come")

    export = command("export", _export, "one file that runs elsewhere")
    export.add_argument("file", help="ends in .onnx, .stablehlo or .tflite")
    export.add_argument("--length", type=_positive, help="of texts, in tokens")
    export.add_argument("--resize", action="store_true", help="the file resizes pictures itself")

    explain = command("explain", _explain, "a few things to look at, or a job of many to Parquet")
    explain.add_argument("things", nargs="*", metavar="THING", help="a picture's file, or a text")
    explain.add_argument("--targets", "--target", action="append", metavar="CLASS",
                         help="name or number, may come again; else the predicted one")  # fmt: skip
    job = explain.add_argument_group(
        "a job: --input and --output", "The same command goes on; every item is explained once."
    )
    job.add_argument("--input", help="a folder, a pattern, or a file: pictures, .txt, .csv, .tsv, "
                     ".jsonl, .parquet, .tar, .tar.gz, .tfrecord")  # fmt: skip
    job.add_argument("--output", help="a folder for Parquet files")
    job.add_argument("--column", help="of tables, what to explain; else image, path, text, …")
    job.add_argument("--key", help="of tables, the column of ids; else the row's number")
    job.add_argument("--top-k", type=_positive, help="the most probable classes of each item")
    job.add_argument("--refine", type=int, default=0, help="queries about each map")
    job.add_argument("--limit", type=_positive, help="items of this process")
    job.add_argument("--batch-size", type=_positive, help="items at a time")
    job.add_argument("--shard", default="0/1", help="this process of how many; auto: as Slurm says")
    job.add_argument("--overlays", help="a folder for a PNG of each map over its picture")
    job.add_argument("--part-seconds", type=float, default=30.0, help="what a kill loses at most")
    for one in (serve, explain):
        one.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"),
                         help="of products; bfloat16 is faster on accelerators")  # fmt: skip
    return parser


def _hyphens(argument: str) -> str:
    """--top_k is --top-k."""
    return re.sub(r"^--[^=]+", lambda name: name[0].replace("_", "-"), argument)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port; give 0 to 65535")
    return int(text)


def _find(given: argparse.Namespace) -> None:
    """Raises where something that a command names is not there."""
    given.folder = finding.local(given.explainer, given.revision)
    found = finding.explainer(given.folder)
    if given.predictor:
        host.check(given.predictor)
    if getattr(given, "file", None):
        finding.export(given.file)
    if (found / "predictor" / "preprocessor_config.json").is_file():  # of pictures
        for path in getattr(given, "things", ()):
            if not os.path.exists(os.path.expanduser(path)):
                raise ValueError(f"there is no picture {escape.terminal(path)}")
    if getattr(given, "input", None):
        require("pyarrow")
        path = os.path.expanduser(given.input)
        if not os.path.exists(path) and not any(glob.iglob(path, recursive=True)):
            raise ValueError(f"--input: there is no {escape.terminal(path)}, and nothing like it")


def _load(given: argparse.Namespace):
    from fex_jax import compiled, explain

    compiled.keep()
    dtype = getattr(given, "dtype", "float32")
    return explain.load(given.folder, given.predictor, dtype=dtype)


def _serve(given: argparse.Namespace) -> int:
    from fex_jax.serve import Limits, run

    name = given.name or pathlib.Path(given.explainer).resolve().name
    names = "max_megabytes", "max_things", "max_batch", "max_waiting", "max_seconds"
    limits = Limits(*(getattr(given, name) for name in names))
    run(_load(given), name, given.host, given.port, limits)
    return 0


def _export(given: argparse.Namespace) -> int:
    print(_load(given).export(given.file, length=given.length, resize=given.resize))
    return 0


def _explain(given: argparse.Namespace) -> int:
    if given.input or given.output:
        return _job(given)
    if not given.things:
        raise ValueError(
            "there is nothing to explain: give files or texts, or --input and --output"
        )
    from fex_jax import modalities

    explainer = _load(given)
    modality = modalities.of(explainer.predictor)
    if not hasattr(modality, "lines"):
        raise ValueError(
            f"explain shows pictures and texts; an explainer of {explainer.predictor.modality} is "
            f"called in Python: fex_jax.load(…)({modality.THING})"
        )
    for target in _targets(given, explainer) or [None]:
        print(*modality.lines(given.things, explainer(given.things, target)), sep="\n")
    return 0


def _targets(given: argparse.Namespace, explainer) -> list[int | str] | None:
    """Classes as names, and what is none as a number."""
    from fex_jax.targets import named

    labels = explainer.predictor.labels
    return given.targets and [
        int(name) if name.isdecimal() and not named(name, labels) else name
        for name in given.targets
    ]


def _job(given: argparse.Namespace) -> int:
    if not (given.input and given.output) or given.things:
        raise ValueError("a job takes both --input and --output, and nothing else to explain")
    from fex_jax.batch import explain_files

    names = ("top_k", "refine", "column", "key", "limit", "batch_size", "shard",
             "overlays", "part_seconds")  # fmt: skip
    options = {name: getattr(given, name) for name in names}
    explainer = _load(given)
    options["targets"] = _targets(given, explainer)
    done = explain_files(explainer, given.input, given.output, **options)
    said = f"{given.output}: {done.items:,} items, {done.before:,} of them from before"
    if done.errors:
        said += f"; {done.errors:,} could not be explained, the first is {done.first}"
    print(said + ("; stopped, the same command goes on" if done.stopped else ""))
    return 143 if done.stopped else 0
