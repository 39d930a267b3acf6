"""Arrays in, plotly figures out. Each plot is loaded, and plotly with it, when it is first used."""

from importlib import import_module

_HOME = {
    "CONFIG": "style",
    "against_theory": "theory",
    "attention_map": "attention",
    "attention_row": "attention",
    "coverage": "cover",
    "difference": "compare",
    "error_bars": "errors",
    "errors_by_horizon": "errors",
    "forecast": "series",
    "gate_heatmap": "gates",
    "gate_overview": "overview",
    "gates_through_training": "compare",
    "half_life": "memory",
    "head_grid": "grid",
    "loss_curves": "training",
    "matrix": "matrices",
    "memory_reach": "reach",
    "pooling_bars": "pooling",
    "profile": "profiles",
    "retention": "retained",
    "saturation": "saturated",
    "state_health": "health",
    "surprise_lanes": "writes",
    "write_lanes": "writes",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"workbench.plots has no {name!r}; it offers {', '.join(__all__)}.")
    return getattr(import_module(f"workbench.plots.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
