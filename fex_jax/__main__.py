"""python -m fex_jax: see `cli`."""

import sys

from fex_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
