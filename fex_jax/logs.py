"""What a training run reports: JSON lines, TensorBoard scalars and a line for people."""

import json
import pathlib
from collections.abc import Callable


def open_log(workdir: pathlib.Path, start: int) -> Callable[[dict[str, float]], None]:
    """Returns write(metrics), for `<workdir>/metrics.jsonl` and `<workdir>/tensorboard`.

    Metrics must hold "step". Lines of steps after `start`, which will run again, are dropped.
    """
    import tensorflow as tf

    path = workdir / "metrics.jsonl"
    old = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in old if json.loads(line)["step"] <= start]
    path.write_text("".join(f"{line}\n" for line in kept))
    file = path.open("a", buffering=1)
    board = tf.summary.create_file_writer(str(workdir / "tensorboard"))

    def write(metrics: dict[str, float]) -> None:
        print(json.dumps(metrics), file=file)
        with board.as_default(metrics["step"]):
            for name, value in metrics.items():
                tf.summary.scalar(name, value)

    return write


def console_line(metrics: dict[str, float]) -> str:
    """One step's state in words, FEX's or FastSHAP's."""
    words = [f"step {metrics['step']:5d}", f"loss {metrics['loss']:+.3f}"]
    words.append(f"f(x) {metrics['f/clean']:.2f}")
    if "policy/kept_features" in metrics:
        words += [
            f"f(m⊙x) {metrics['f/under_policy']:.2f}",
            f"kl {metrics['loss/kl']:.3f}",
            f"keeps {metrics['policy/kept_features']:.1f}/{metrics['policy/num_features']:.4g}",
            f"clipped {metrics['ppo/clip_fraction']:.0%}",
        ]
    else:
        words += [
            f"f(∅) {metrics['f/empty']:.2f}",
            f"explains {metrics['value/explained_variance']:.0%} of v(S)",
            f"gap {metrics['efficiency_gap']:.3f}",
        ]
    return "  ".join([*words, f"{metrics['images_per_second']:.0f} inputs/s"])
