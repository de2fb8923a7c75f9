"""fex-jax: fast explanations of black-box classifiers, learned by policy gradients."""

import os

# TensorFlow, which only reads data here, prints a screenful when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
