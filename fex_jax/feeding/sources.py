"""What a source is, of whatever things."""

from typing import TypeAlias

from fex_jax import data, text_data
from fex_jax.data import tables

Source: TypeAlias = data.Source | text_data.Source | tables.Source
