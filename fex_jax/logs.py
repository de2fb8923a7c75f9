"""What a training run reports: JSON lines, TensorBoard scalars and a line for people."""

import json
import os
import pathlib
from collections.abc import Callable

from fex_jax import errors


def open_log(workdir: pathlib.Path, start: int) -> Callable[[dict[str, float]], None]:
    """Returns write(metrics), for `<workdir>/metrics.jsonl` and `<workdir>/tensorboard`.

    Metrics must hold "step". Lines of steps after `start`, which will run again, are dropped, and
    so is a line that a full disk or a kill has torn; the file has one line a step.
    """
    errors.require("tensorboard")  # else TensorFlow would say so at the first line
    import tensorflow as tf

    path = workdir / "metrics.jsonl"
    kept = read(path)
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(f"{json.dumps(kept[step])}\n" for step in kept if step <= start))
    os.replace(part, path)
    board = tf.summary.create_file_writer(str(workdir / "tensorboard"))

    def write(metrics: dict[str, float]) -> None:
        try:
            with path.open("a") as file:
                print(json.dumps(metrics), file=file)
            with board.as_default(metrics["step"]):
                for name, value in metrics.items():
                    tf.summary.scalar(name, value)
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                f"{path} or {workdir / 'tensorboard'} cannot be written ({error}): make room there "
                "if the disk is full; the same command continues"
            ) from error

    return write


def read(path: pathlib.Path) -> dict[int, dict[str, float]]:
    """Step → its metrics, in order; lines that are no JSON objects with a step are said."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    found = {}
    for number, line in enumerate(lines, 1):
        try:
            metrics = json.loads(line)
            found[int(metrics["step"])] = metrics
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            print(f"{path}, line {number}, is torn and dropped: {line[:60]!r}")
    return dict(sorted(found.items()))


def console_line(metrics: dict[str, float]) -> str:
    """One step's state in words, FEX's or a rival's."""
    words = [f"step {metrics['step']:5d}", f"loss {metrics['loss']:+.3f}"]
    words.append(f"f(x) {metrics['f/clean']:.2f}")
    if "policy/num_features" in metrics:
        words += [
            f"f(m⊙x) {metrics['f/under_policy']:.2f}",
            f"kl {metrics['loss/kl']:.3f}",
            f"keeps {metrics['policy/kept_features']:.1f}/{metrics['policy/num_features']:.4g}",
        ]
        if "ppo/clip_fraction" in metrics:
            words.append(f"clipped {metrics['ppo/clip_fraction']:.0%}")
        if "held_out/explained" in metrics:
            words.append(f"explains {metrics['held_out/explained']:.0%} of held-out answers")
    elif "q/agreement" in metrics:
        words += [
            f"keeps {metrics['policy/kept_features']:.1f}",
            f"q agrees on {metrics['q/agreement']:.0%}",
        ]
    else:
        words += [
            f"f(∅) {metrics['f/empty']:.2f}",
            f"explains {metrics['value/explained_variance']:.0%} of v(S)",
            f"gap {metrics['efficiency_gap']:.3f}",
        ]
    return "  ".join([*words, f"{metrics['images_per_second']:.0f} inputs/s"])
