"""Jobs that explain files by the million: a folder of them in, Parquet out, each exactly once.

`items` reads what is explained, `rows` makes a table of it, `parts` keeps the table on disk, `job`
runs them in one process, `ray` on a cluster.
"""

from fex_jax.batch.job import Summary, explain_files
from fex_jax.batch.rows import Rows

__all__ = ["Rows", "Summary", "explain_files"]
