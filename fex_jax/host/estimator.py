"""Estimators and pipelines of scikit-learn, and others of the same interface, as XGBoost's."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fex_jax import errors
from fex_jax.host import digests
from fex_jax.host.predictor import HostPredictor, Input, host


def estimator(
    model: Any, *, input: Input | None = None, labels: Sequence[str] | None = None, **options: Any
) -> HostPredictor:
    """A fitted estimator: `predict_proba` of a classifier, `predict` of a regressor.

    Args:
      model: the estimator, or a pipeline that ends in one.
      input: (columns,), "table" or "text"; None: "table" if it was fitted on a data frame, else as
        many columns as it was fitted on.
      labels: names of the classes; None: `classes_`.
      options: of `host`; `digest` where it holds what cannot be pickled, as a lambda.

    Raises:
      ValueError: a class, a bare Booster, a classifier without `predict_proba`, what is neither a
        classifier nor a regressor, or what cannot be known without `input`.
    """
    errors.require("joblib")
    if isinstance(model, type):
        raise ValueError(
            f"{model.__name__} is a class: give an estimator of it that is fitted, "
            f"{model.__name__}().fit(x, y)"
        )
    if type(model).__name__ == "Booster":  # of xgboost or lightgbm
        raise ValueError(
            f"a bare Booster of {type(model).__module__.split('.')[0]} does not say what it takes "
            "and what its numbers are: give its estimator, such as XGBClassifier or "
            "LGBMClassifier, or a function of it to fex_jax.host"
        )
    if hasattr(model, "fit_predict"):  # as of clusters, outliers and densities
        raise ValueError(
            f"{type(model).__name__} is neither a classifier nor a regressor, and what it predicts "
            "are numbers of groups; give host a function of what is to be explained, such as its "
            "score_samples, with output='value'"
        )
    # CatBoost's names are numbers where it was fitted on an array.
    names = getattr(model, "feature_names_in_", getattr(model, "feature_names_", None))
    if input is None and names is not None and list(names) != [str(i) for i in range(len(names))]:
        input = "table"
    elif input is None:
        if not hasattr(model, "n_features_in_"):
            raise ValueError(
                f"{type(model).__name__} does not say what it takes: fit it first, or give "
                "input=(columns,) or input='text'"
            )
        input = (int(model.n_features_in_),)
    classes = getattr(model, "classes_", None)
    if classes is not None and not len(classes):  # of CatBoost's regressors
        classes = None
    multilabel = isinstance(classes, list)  # an array of classes for each label
    if hasattr(model, "predict_proba"):
        call, output = model.predict_proba, "softmax"
        if multilabel:
            if any(len(of_label) != 2 for of_label in classes):
                raise ValueError(
                    f"{type(model).__name__} predicts several labels not all of two classes; "
                    "give host a function that returns the probabilities of one"
                )
            call, output = _of_each_label(model), "sigmoid"
    elif classes is not None or not hasattr(model, "predict"):
        raise ValueError(
            f"{type(model).__name__} has no predict_proba; wrap it in scikit-learn's "
            "CalibratedClassifierCV"
        )
    else:
        call, output = model.predict, "value"
    if labels is None:
        count = range(len(classes)) if multilabel else classes
        labels = ("value",) if classes is None else [str(name) for name in count]
    settings: dict[str, Any] = {"name": type(model).__name__}
    if "digest" not in options:
        settings["digest"] = digests.of_estimator(model)
    if input == "table" and names is not None:
        settings["columns"] = list(names)
    return host(call, labels=labels, input=input, **settings | {"output": output} | options)


def _of_each_label(model: Any) -> Any:
    def call(batch: Any) -> np.ndarray:
        answers = model.predict_proba(batch)  # of a chain of classifiers, an array already
        if isinstance(answers, list):
            answers = np.stack([of[:, 1] for of in answers], -1)
        return answers

    return call
