"""How long a run of `fex_jax.fit` is where nobody says it."""

import jax
import ml_collections
import numpy as np

_MOST_EPOCHS = 20


def suit_length(config: ml_collections.ConfigDict, size: int) -> None:
    """Batch size and epochs that suit so many items, and the device."""
    on_cpu, devices = jax.default_backend() == "cpu", jax.device_count()
    parts = devices * config.objective.num_updates  # a batch is divided into so many
    largest = (32 if on_cpu else 128) * devices
    config.batch_size = parts * max(1, min(largest, max(16, size // 16), size) // parts)
    examples = np.clip(size, 9_600, 19_200) if on_cpu else np.clip(size, 64_000, 256_000)
    config.epochs = float(min(examples / size, _MOST_EPOCHS))
