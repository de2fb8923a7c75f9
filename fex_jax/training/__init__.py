"""Training: one loop for explainers and classifiers, what it reads, and `fex_jax.fit`."""
