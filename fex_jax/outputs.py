"""What a classifier answers with, in one word; `predictors.Model` says what each means."""

from typing import Literal

Output = Literal["softmax", "sigmoid", "value"]


def told(output: Output) -> tuple[str, ...]:
    """What an identity says of it: of a softmax nothing, as identities that never named it."""
    return () if output == "softmax" else (output,)
