"""Every recurrence with the table of its forms: what `workbench backends` shows."""

from collections.abc import Mapping

from workbench.kernels import gated_delta, gru, lstm, mlstm, neural_memory, rwkv7, slstm
from workbench.kernels.backends import Backends

TABLES: Mapping[str, Backends] = {
    table.recurrence: table
    for table in (
        lstm.BACKENDS,
        gru.BACKENDS,
        slstm.BACKENDS,
        slstm.EXPFORGET_BACKENDS,
        mlstm.BACKENDS,
        mlstm.EXPFORGET_BACKENDS,
        mlstm.SIGMOID_BACKENDS,
        gated_delta.BACKENDS,
        rwkv7.BACKENDS,
        neural_memory.BACKENDS,
        neural_memory.MLP_BACKENDS,
    )
}


def describe(names: list[str] | None = None) -> list[dict[str, str]]:
    """One row for each form: recurrence, form, devices, widest, needs, limits, gradients, auto.

    Args:
        names: recurrences to show; None or none for all.

    Raises:
        ValueError: a recurrence is unknown.
    """
    if unknown := [name for name in names or () if name not in TABLES]:
        raise ValueError(f"recurrence {', '.join(unknown)} is unknown; choose from {', '.join(TABLES)}.")
    return [
        {
            "recurrence": recurrence,
            "form": form,
            "devices": row.devices,
            "widest": row.widest,
            "needs": row.needs,
            "limits": row.limits or "none",
            "gradients": row.gradients,
            "auto": "yes" if row.auto else "by name",
        }
        for recurrence in names or TABLES
        for form, row in TABLES[recurrence].rows.items()
    ]
