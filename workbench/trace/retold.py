"""A layer of another package as ours: computed again by our references, under our names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from workbench.shapes import Tensor


def never(*inputs: object, **options: object) -> bool:
    """Whatever a layer is given, it brings no memory."""
    return False


@dataclass(frozen=True)
class Retold:
    """Called with what the layer's `forward` is called with, returns y as we compute it, and {name: tensor}.

    Attributes:
        kind: our class of cell that has the same equations.
        run: what computes them.
        settings: what the equations depend on, under the names that our cell has for it.
        carried: from the same arguments, whether the memory began with anything that the trace does not hold.
    """

    kind: str
    run: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    settings: Mapping[str, int | str] = field(default_factory=dict)
    carried: Callable[..., bool] = never

    def __call__(self, *inputs: object, **options: object) -> tuple[Tensor, dict[str, Tensor]]:
        """The layer's output, by our reference, and every quantity by name."""
        return self.run(*inputs, **options)


def accept(layer: nn.Module, **settings: tuple[object, object]) -> None:
    """Refuse a layer whose equations are not ours.

    Args:
        layer: of another package.
        settings: what each setting is, and what it must be.

    Raises:
        ValueError: one is not, by name.
    """
    for name, (is_now, must_be) in settings.items():
        if is_now != must_be:
            raise ValueError(
                f"{title(layer)} with {name}={is_now!r} computes what nothing here does, and cannot be traced; "
                f"with {name}={must_be!r} it can."
            )


def check_dropout(layer: nn.Module, share: float) -> None:
    """Refuse what is drawn anew each time.

    Raises:
        ValueError: the layer drops a share of its values now.
    """
    if layer.training and share > 0:
        raise ValueError(
            f"{title(layer)} drops values at random while it trains (dropout={share}), which cannot be computed again; "
            f"call model.eval() before tracing it."
        )


def title(layer: nn.Module) -> str:
    """A layer's class and package, for messages."""
    return f"{type(layer).__name__} of {type(layer).__module__.partition('.')[0]}"
