"""What a classifier answers with, in one word; `predictors.Model` says what each means."""

from typing import Literal

Output = Literal["softmax", "sigmoid", "value"]
