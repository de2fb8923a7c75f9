"""Trains the text classifier that a config explains and saves it as a Hugging Face directory.

    python scripts/train_text_predictor.py --config=configs/bert_sst2.py --backbone=DIRECTORY

fine-tunes a pretrained BERT, DistilBERT or RoBERTa and writes it to `config.predictor.path`.
Without `--backbone` a small BERT and its vocabulary are learned from the texts alone. Words, or
tokens if that is `config.text.unit`, are masked at random during training, so that masked inputs
are in the classifier's distribution.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import masking, pretrained, text_data, text_streams, tokens  # noqa: E402
from fex_jax.models import functional  # noqa: E402
from fex_jax.models.bert import BertClassifier, BertConfig  # noqa: E402
from fex_jax.token_batch import TokenBatch  # noqa: E402
from fex_jax.training import classifier, identity  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write; default config.predictor.path.")
_BACKBONE = flags.DEFINE_string("backbone", None, "Pretrained directory or hub id to fine-tune.")
_MAX_LENGTH = flags.DEFINE_integer("max_length", 512, "Tokens; longer texts are cut to them.")
_VOCABULARY = flags.DEFINE_integer("vocabulary", 4000, "Tokens of a BERT from scratch.")
_WIDTH = flags.DEFINE_integer("width", 128, "Hidden size of a BERT from scratch.")
_LAYERS = flags.DEFINE_integer("layers", 2, "Blocks of a BERT from scratch.")
_EPOCHS = flags.DEFINE_float("epochs", 3.0, "Passes over the training texts.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Texts per step.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 5e-5, "Peak of a one-cycle cosine schedule.")
_REMOVED = flags.DEFINE_float("removed", 0.75, "Up to this share of words is masked in a text.")
_EVAL_TEXTS = flags.DEFINE_integer("eval_texts", 2000, "Held-out texts of the accuracies.")


def masked(key: jax.Array, inputs: TokenBatch, removed: jax.Array, mask_id: int) -> TokenBatch:
    """Texts of which each feature is masked with the text's probability `removed` [B]."""
    kept = jax.random.uniform(key, inputs.ids.shape) >= removed[:, None]
    return masking.tokens(inputs, kept, mask_id)


def sinusoids(rows: int, columns: int) -> jax.Array:
    """A first table of positions, [rows, columns], as large as BERT's random one.

    Neighbours are alike in it, so that what "not" does to the next word is learned everywhere at
    once; from random rows, few texts teach it at each place anew.
    """
    angles = np.arange(rows)[:, None] / 1e3 ** np.linspace(0, 1, columns // 2)
    return jnp.asarray(0.02 * np.sqrt(2) * np.hstack([np.sin(angles), np.cos(angles)]), jnp.float32)


def initial_checkpoint(source: text_data.Source) -> pretrained.TextCheckpoint:
    """The pretrained backbone with a new head, or a random small BERT."""
    if _BACKBONE.value:
        loaded = pretrained.load(_BACKBONE.value, num_classes=len(source.names))
        if not isinstance(loaded, pretrained.TextCheckpoint):
            raise ValueError(f"{_BACKBONE.value} is a {loaded.config.family}, no text model")
        return dataclasses.replace(loaded, labels=source.names)
    tokenizer = tokens.learn(source.texts, _VOCABULARY.value)
    config = BertConfig(
        family="bert",
        vocab_size=tokenizer.vocab_size,
        num_classes=len(source.names),
        hidden_size=_WIDTH.value,
        num_layers=_LAYERS.value,
        num_heads=max(1, _WIDTH.value // 32),
        mlp_dim=4 * _WIDTH.value,
        max_positions=_MAX_LENGTH.value,
        pad_id=tokenizer.pad_id,
    )
    init, _ = functional(BertClassifier, config)
    params = init(jax.random.key(0))
    params["backbone"]["position_embedding"] = sinusoids(config.max_positions, config.hidden_size)
    return pretrained.TextCheckpoint(config, params, source.names, tokenizer)


def train_classifier() -> None:
    config = _CONFIG.value
    output = _OUTPUT.value or config.predictor.path
    train, held_out = (
        text_data.open_source(config.data.name, split, config.data.path)
        for split in (config.data.train_split, config.data.eval_split)
    )
    if train.classes is None or held_out.classes is None:
        raise ValueError(f"{config.data.path} has no labels, and a classifier learns them")
    checkpoint = initial_checkpoint(train)
    tokenizer = checkpoint.tokenizer
    length = min(_MAX_LENGTH.value, checkpoint.config.max_length)
    features = {"unit": config.text.unit, "too_long": "cut"}
    steps = max(1, round(_EPOCHS.value * train.size / _BATCH_SIZE.value))
    _, bind = functional(BertClassifier, checkpoint.config)
    schedule = optax.cosine_onecycle_schedule(steps, _LEARNING_RATE.value, 0.1)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01)
    )

    def loss(params, batch, key, done):
        amount, which = jax.random.split(key)
        # Whole texts first: what words mean is learned faster without holes.
        most = _REMOVED.value * jnp.minimum(1, 2 * done)
        removed = jax.random.uniform(amount, (len(batch["label"]),), maxval=most)
        inputs = masked(which, batch["inputs"], removed, tokenizer.mask_id)
        logits = bind(params)(inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    @jax.jit
    def predicted(params, inputs, removed, i):
        removed = jnp.full(len(inputs.ids), removed)
        inputs = masked(jax.random.fold_in(jax.random.key(0), i), inputs, removed,
                        tokenizer.mask_id)  # fmt: skip
        return bind(params)(inputs).argmax(-1)

    def accuracy(params, removed: float) -> float:
        stream = text_streams.eval_stream(
            held_out, tokenizer, length, _BATCH_SIZE.value, limit=_EVAL_TEXTS.value, **features
        )
        correct = [
            np.asarray(predicted(params, batch["inputs"], removed, i)) == batch["label"]
            for i, batch in enumerate(stream)
        ]
        return float(np.mean(np.concatenate(correct)))

    def batches(start: int) -> Iterator[dict]:
        return text_streams.train_stream(
            train, tokenizer, length, _BATCH_SIZE.value, seed=config.seed, start=start, **features
        )

    settings = {f.name: f.value for f in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    settings |= {"config": config.to_dict(), "data": identity.of_data(train, checkpoint)}
    classifier.fit(
        pathlib.Path(output),
        checkpoint.params,
        optimizer,
        loss,
        batches,
        steps,
        seed=config.seed,
        settings=settings,
        batch_size=_BATCH_SIZE.value,
        checkpoint_every=config.checkpoint.every,
        report_every=500,
        accuracy=accuracy,
        save=lambda p: pretrained.save(output, dataclasses.replace(checkpoint, params=p)),
        saved=[pathlib.Path(output, "model.safetensors")],
    )


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file
    try:
        train_classifier()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
