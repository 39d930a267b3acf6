"""Annotations that carry shapes: `Float[Tensor, "B H T D"]`, checked under test and free otherwise."""

from torch import Tensor

try:
    from jaxtyping import Bool, Float, Int
except ModuleNotFoundError:  # a machine that only computes

    class _Plain:
        """Stands in for a jaxtyping annotation: `Float[Tensor, "B T"]` is `Tensor`."""

        def __class_getitem__(cls, item: tuple) -> type:
            return item[0]

    Bool = Float = Int = _Plain

__all__ = ["Bool", "Float", "Int", "Tensor"]
