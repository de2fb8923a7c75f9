"""fex-jax: explainers at a command line.

    fex-jax serve runs/mine
    fex-jax export runs/mine explainer.onnx
    fex-jax explain runs/mine picture.jpg

Explainers are trained by train.py and scored by eval.py of the repository, or from Python by
fex_jax.fit and fex_jax.evaluate.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; what is wrong is said in a line, before anything heavy is imported."""
    given = _parser().parse_args(arguments)
    try:
        return given.run(given)
    except (ValueError, OSError, ImportError) as error:
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
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
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
    serve.add_argument("--port", type=int, default=8000, help="0: any that is free")
    serve.add_argument("--name", help="of the model, in addresses; by default the folder's")
    serve.add_argument("--max-megabytes", type=_positive, default=16, help="of a request")
    serve.add_argument("--max-things", type=_positive, default=64, help="of a request")
    serve.add_argument("--max-batch", type=_positive, default=8, help="explained at a time")
    serve.add_argument("--max-waiting", type=_positive, default=256, help="others are refused")

    export = command("export", _export, "one file that runs elsewhere")
    export.add_argument("file", help="ends in .onnx, .stablehlo or .tflite")
    export.add_argument("--length", type=_positive, help="of texts, in tokens")

    explain = command("explain", _explain, "the most important features of files or texts")
    explain.add_argument("things", nargs="+", metavar="THING", help="a picture's file, or a text")
    explain.add_argument("--target", help="the class to explain; by default the predicted one")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _load(given: argparse.Namespace):
    from fex_jax import explain

    return explain.load(given.explainer, given.predictor, revision=given.revision)


def _serve(given: argparse.Namespace) -> int:
    try:
        from fex_jax.serve import Limits, run
    except ModuleNotFoundError as error:
        raise ImportError(f"serving takes {error.name}: pip install 'fex-jax[serve]'") from error
    name = given.name or pathlib.Path(given.explainer).resolve().name
    limits = Limits(given.max_megabytes, given.max_things, given.max_batch, given.max_waiting)
    run(_load(given), name, given.host, given.port, limits)
    return 0


def _export(given: argparse.Namespace) -> int:
    print(_load(given).export(given.file, length=given.length))
    return 0


def _explain(given: argparse.Namespace) -> int:
    explainer = _load(given)
    found = explainer(given.things, given.target)
    if explainer.predictor.modality == "texts":
        print(*found, sep="\n")
        return 0
    for thing, target, answers, maps in zip(
        given.things, found.targets, found.probabilities, found.attributions, strict=True
    ):
        print(f"{thing}: {found.labels[target]} ({answers[target]:.0%})")
        print("\n".join(" ".join(f"{value:3.0%}".rjust(4) for value in row) for row in maps))
    return 0
