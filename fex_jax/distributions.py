"""distrax, imported so that it does not matter what was imported before it."""

import sys


def _import_distrax():
    # TensorFlow Probability, below distrax, loads its Keras layers where TensorFlow is there
    # already, and with them asks for tf_keras. distrax only uses its JAX half, which needs
    # neither; and with None in its place TensorFlow counts as not there.
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or "tensorflow_probability" in sys.modules:
        import distrax

        return distrax
    sys.modules["tensorflow"] = None
    try:
        import distrax
    finally:
        sys.modules["tensorflow"] = tensorflow
    return distrax


distrax = _import_distrax()
