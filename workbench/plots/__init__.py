"""Arrays in, plotly figures out. Each plot is loaded, and plotly with it, when it is first used."""

from importlib import import_module

_HOME = {
    "CONFIG": "style",
    "error_bars": "errors",
    "errors_by_horizon": "errors",
    "forecast": "series",
    "gate_heatmap": "gates",
    "gate_overview": "gates",
    "half_life": "memory",
    "loss_curves": "training",
    "profile": "profiles",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"workbench.plots has no {name!r}; it offers {', '.join(__all__)}.")
    return getattr(import_module(f"workbench.plots.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
