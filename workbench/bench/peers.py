"""Kernels of other packages behind our signatures, where they are installed: measured on the same inputs as ours."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from torch import Tensor

from workbench.kernels.gated_delta import GatedDeltaState
from workbench.kernels.mlstm import MLSTMState
from workbench.kernels.rwkv7 import RWKV7State

MLSTM_KERNELS = ("chunkwise--native_autograd", "chunkwise--native_custbw", "parallel--native_autograd")
MLSTM_KERNELS += ("parallel--native_custbw", "native_sequence__native")


def peers(recurrence: str) -> dict[str, Callable]:
    """Name to `call(*inputs, state) -> (y, state)` for each kernel of an installed package."""
    if recurrence == "mlstm" and find_spec("mlstm_kernels"):
        return {f"mlstm_kernels {name}": partial(official_mlstm, name) for name in MLSTM_KERNELS}
    if recurrence == "gated_delta" and (naive := fla("gated_delta_rule")):
        return {
            "fla naive_recurrent": partial(fla_gated_delta, naive.naive_recurrent_gated_delta_rule, "bg"),
            "fla naive_chunk": partial(fla_gated_delta, naive.naive_chunk_gated_delta_rule, "gb"),
        }
    if recurrence == "rwkv7" and (naive := fla("generalized_delta_rule/dplr")):
        return {
            "fla dplr_recurrence": partial(fla_rwkv7, naive.dplr_recurrence),
            "fla dplr_chunkwise": partial(fla_rwkv7, naive.dplr_chunkwise),
        }
    return {}


def fla(folder: str) -> ModuleType | None:
    """flash-linear-attention's naive forms of one recurrence, read alone: the package itself asks for a GPU."""
    package = find_spec("fla")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0], "ops", folder, "naive.py")
    spec = spec_from_file_location("fla_naive_" + path.parent.name, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official_mlstm(
    name: str, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState | None
) -> tuple[Tensor, MLSTMState | None]:
    """A kernel of NX-AI's mlstm_kernels, its eps set to 0, its state in the type of its inputs.

    Its hand-written backward passes (custbw) leave out the gradient of the normaliser, which cancels where a norm of
    each head follows, as in its layers. Here nothing follows.

    Raises:
        NotImplementedError: a parallel form got a state.
    """
    from mlstm_kernels.torch import get_mlstm_kernel, get_mlstm_sequence_kernel

    if name.startswith("parallel"):
        if state is not None:
            raise NotImplementedError(f"{name} takes no state.")
        return get_mlstm_kernel(name)(q, k, v, i, f, eps=0.0), None
    step_by_step = name.startswith("native_sequence")
    kernel = get_mlstm_sequence_kernel(name) if step_by_step else get_mlstm_kernel(name)
    own = {"dtype_state": i.dtype} if step_by_step else {"chunk_size": min(64, q.shape[2])}
    if name.endswith("custbw"):
        own["autocast_kernel_dtype"] = q.dtype
    first = {}
    if state is not None:
        first = dict(zip(("c_initial", "n_initial", "m_initial"), (x.to(q.dtype) for x in state), strict=True))
        first["m_initial"] = first["m_initial"][..., None]
    h, (c, n, m) = kernel(q, k, v, i, f, **first, return_last_states=True, eps=0.0, **own)
    return h, MLSTMState(c, n, m.reshape(i.shape[:2]))


def fla_gated_delta(
    kernel: Callable,
    order: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    state: GatedDeltaState | None,
) -> tuple[Tensor, GatedDeltaState]:
    """A naive form of the gated delta rule; `order` says whether beta or g comes first."""
    q, k, v, beta, g = (x.transpose(1, 2) for x in (q, k, v, beta, g))
    gates = (beta, g) if order == "bg" else (g, beta)
    o, s = kernel(q, k, v, *gates, scale=1.0, initial_state=state and state.s, output_final_state=True)
    return o.transpose(1, 2), GatedDeltaState(s)


def fla_rwkv7(
    kernel: Callable,
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    state: RWKV7State | None,
) -> tuple[Tensor, RWKV7State]:
    """A naive form of the generalised delta rule, which scales its queries by K^-1/2."""
    o, s = kernel(r * r.shape[-1] ** 0.5, k, v, -kappa, kappa * a, log_w, initial_state=state and state.s)
    return o, RWKV7State(s)
