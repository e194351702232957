"""Errors of blends that explode, brought near those of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztom.search.gaussian_process import Array


@dataclass(frozen=True)
class Compression:
    """Errors far above the trained model's, where blends explode, count by their logarithm.

    Up to ``knee`` an error is itself, above it ``knee + scale log(1 + (error - knee) / scale)``.
    """

    knee: float
    scale: float

    @classmethod
    def of(cls, errors: Array) -> Compression:
        """The knee lies five median distances above the median error, beyond any quadratic's."""
        middle = float(np.median(errors))
        scale = 5.0 * float(np.median(np.abs(errors - middle)))
        return cls(middle + scale, scale) if scale > 0 else cls(float(errors.max()), 1.0)

    def apply(self, errors: Array) -> Array:
        """Compress errors, shape (...,)."""
        above = np.maximum(errors - self.knee, 0.0) / self.scale
        compressed: Array = np.minimum(errors, self.knee) + self.scale * np.log1p(above)
        return compressed

    def undo(self, values: Array) -> Array:
        """The errors of compressed values, shape (...,)."""
        above = np.maximum(values - self.knee, 0.0) / self.scale
        exact = self.scale * np.expm1(np.minimum(above, 700.0))
        errors: Array = np.minimum(values, self.knee) + exact
        return errors
