"""Layers of other packages, traced without changing them: which are known, by the full name of their class.

Nothing of theirs is imported: a layer whose class is not loaded cannot be in a model.
"""

from collections.abc import Callable

from torch import nn

from workbench.trace.foreign_titans import titans
from workbench.trace.foreign_xlstm import mlstm, mlstm_large, slstm
from workbench.trace.retold import Retold

# Full name of a class to what computes its layers again; the place for one more package.
LAYERS: dict[str, Callable[[nn.Module], Retold]] = {
    "xlstm.blocks.mlstm.layer.mLSTMLayer": mlstm,
    "xlstm.blocks.slstm.layer.sLSTMLayer": slstm,
    "xlstm.xlstm_large.model.mLSTMLayer": mlstm_large,
    "transformers.models.xlstm.modeling_xlstm.xLSTMLayer": mlstm_large,  # without xlstm; with it, the one above
    "titans_pytorch.neural_memory.NeuralMemory": titans,
}


def tracer(module: nn.Module) -> Retold | None:
    """What computes the quantities of a layer of another package; None where it is not known.

    Only calls are traced: `step` of an xlstm stack goes around the hooks of its layers.

    Args:
        module: any module. Classes that inherit from a known one are not known: they may compute something else.

    Returns:
        `trace(*args, **kwargs) -> (y, {name: tensor})` that takes what the module's `forward` takes.

    Raises:
        ValueError: the layer is known, and has a setting with which its equations are not ours.
    """
    known = LAYERS.get(f"{type(module).__module__}.{type(module).__qualname__}")
    return None if known is None else known(module)
