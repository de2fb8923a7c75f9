"""Units of what a predictor of tables says: log-odds, probabilities, or values of a regression."""

from typing import Literal, cast, get_args

import numpy as np

from fex_jax.outputs import Output

Unit = Literal["log-odds", "probability", "value"]
_CERTAIN = 1e-6  # log-odds take probabilities to be so far from 0 and 1


def choose(given: str, output: Output, plain: bool) -> Unit:
    """The unit that a config asks for; "": log-odds of probabilities, or themselves if `plain`.

    Raises:
      ValueError: a unit that such answers have not, or another than probabilities of `plain` ones.
    """
    usual: Unit = "value" if output == "value" else "probability" if plain else "log-odds"
    if given and (given not in get_args(Unit) or (given == "value") != (output == "value")):
        raise ValueError(
            f"table.unit is {given!r}; of probabilities choose log-odds or probability, of other "
            "predictions value"
        )
    if plain and given == "log-odds":
        raise ValueError(
            "table.unit is 'log-odds', and the presets paper and authors divide a probability by "
            "the number of columns kept: choose probability, or the preset contrast"
        )
    return cast(Unit, given or usual)


def convert(answers: np.ndarray, unit: Unit, pair: bool) -> np.ndarray:
    """What f says, [B, K], in the unit; of `pair` see `rows.Rows`."""
    if unit != "log-odds":
        return answers
    # Of two classes the other's own answer has digits that 1 − f loses.
    others = answers[:, ::-1] if pair else 1 - answers
    return np.log(np.maximum(answers, _CERTAIN)) - np.log(np.maximum(others, _CERTAIN))
