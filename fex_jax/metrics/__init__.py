"""How good is an attribution: perturbation, segmentation, and intervals around both."""

from fex_jax.metrics.bootstrap import bootstrap_interval
from fex_jax.metrics.perturbation import (
    AUTHORS,
    CHEFER,
    FEX,
    PROTOCOLS,
    Curve,
    Curves,
    Protocol,
    area,
    areas,
    image_features,
    perturbation_curves,
    ranks,
    upsample,
)
from fex_jax.metrics.segmentation import (
    STATISTICS,
    average_precision,
    class_specificity,
    mean_average_precision,
    mean_iou,
    pixel_accuracy,
    segmentation_statistics,
)

__all__ = [
    "AUTHORS",
    "CHEFER",
    "FEX",
    "PROTOCOLS",
    "STATISTICS",
    "Curve",
    "Curves",
    "Protocol",
    "area",
    "areas",
    "average_precision",
    "bootstrap_interval",
    "class_specificity",
    "image_features",
    "mean_average_precision",
    "mean_iou",
    "perturbation_curves",
    "pixel_accuracy",
    "ranks",
    "segmentation_statistics",
    "upsample",
]
