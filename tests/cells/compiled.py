"""What torch.compile and torch.export make of each cell: `python -m tests.cells.compiled HOW KIND...`, a line each.

A process of its own, because under test every annotated function carries a type check, which no graph can hold.
"""

import json
import sys

import torch

from tests.cells.table import carried, flat, gradients, make, steps
from workbench.cells.states import map_state
from workbench.kernels.backends import FORMS

SOME = torch.tensor([3, 2, 0])


def compiled(kind: str, backend: str, lengths: torch.Tensor | None = SOME) -> dict[str, float]:
    """Largest differences of a graph without breaks from eager: outputs and state, and gradients towards all."""
    cell, inputs = make(kind)
    first = carried(cell, inputs)
    inputs = {name: x.requires_grad_() for name, x in steps(inputs, 0, 3).items()}
    torch.compiler.reset()
    vars(FORMS).clear()  # as in a fresh process: the graph comes first, and has to import
    got = torch.compile(cell, fullgraph=True, backend=backend)(**inputs, state=first, lengths=lengths)
    wanted = cell(**inputs, state=first, lengths=lengths)
    return {
        "values": largest([got[0], *flat(got[1])], [wanted[0], *flat(wanted[1])]),
        "gradients": largest(*(gradients(cell, inputs, first, *run) for run in (got, wanted))),
    }


@torch.no_grad()
def exported(kind: str) -> dict[str, float]:
    """The same for exported programs: one that begins, for any batch, and one that continues a ragged batch."""
    cell, inputs = make(kind)
    inputs, found = steps(inputs, 0, 3), {}
    first = map_state(torch.Tensor.detach, carried(cell, inputs))
    for name, options in (("empty", {}), ("carried", {"state": first, "lengths": SOME})):
        any_batch = None if options else {key: {0: torch.export.Dim("B", min=2)} for key in inputs}
        program = torch.export.export(cell, (), inputs | options, dynamic_shapes=any_batch).module()
        fresh = {key: torch.randn_like(x if options else torch.cat([x, x])) for key, x in inputs.items()}
        if options:
            options = options | {"state": cell(**fresh, state=first)[1]}
        got, wanted = program(**fresh, **options), cell(**fresh, **options)
        assert type(got[1]) is type(wanted[1])
        found[name] = largest([got[0], *flat(got[1])], [wanted[0], *flat(wanted[1])])
    return found


def largest(got: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest difference, NaN where there is one or where tensors differ in number, shape or type."""
    if [(x.shape, x.dtype) for x in got] != [(x.shape, x.dtype) for x in wanted]:
        return float("nan")
    differences = [(x.detach() - y.detach()).abs().flatten().double() for x, y in zip(got, wanted, strict=True)]
    return float(torch.cat(differences).max())


if __name__ == "__main__":
    how, *kinds = sys.argv[1:]
    for kind in kinds:
        if how == "export":
            found = exported(kind)
        elif how == "without-lengths":
            found = compiled(kind, "aot_eager", None)
        else:
            found = compiled(kind, how)
        print(json.dumps({"kind": kind} | found), flush=True)
