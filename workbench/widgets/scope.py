"""Scope: every gate of a trace over time, layer, head and training step; linked, by mouse and by keys."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import numpy as np
import plotly.colors
import traitlets
from numpy.typing import ArrayLike
from torch import Tensor, nn

from workbench.plots.style import PALETTE
from workbench.trace.names import NAMES, kind_of
from workbench.trace.store import Trace
from workbench.widgets.answers import Answer, Answers, Series, even
from workbench.widgets.asking import Asking, change, edits_of
from workbench.widgets.page import packed_script, page
from workbench.widgets.still import still
from workbench.widgets.tiles import Difference

COLOURS = {
    "sequential": plotly.colors.sequential.Cividis,
    "signed": plotly.colors.diverging.RdBu,
    "log": plotly.colors.diverging.PuOr,
}
BUTTON_MEGABYTES = 20.0  # of a page that the button makes


class Scope(anywidget.AnyWidget):
    """Look into a trace: an overview of layers and heads, units over time, lines, and the input, all linked.

    The numbers stay in the kernel, and in the trace's folder if it has one; the view asks for the stretch that it
    shows, pooled to what fits on a screen. So the notebook does not grow with the trace. Press ? in the view for
    its keys. `export` writes the same view as one file that needs no kernel.

    Args:
        trace: what `record` made, or the folder that holds it, or a mapping of labels to traces (training steps,
            runs), which a slider walks through; the first says which quantities there are.
        series: what the model was given: (time,), (time, channel) or (batch, time, channel).
        tokens: or the text that it was given: a token for each step, or a list of them for each sequence.
        steps: positions on the time axis (time,), numbers or datetime64; None counts steps.
        model, inputs: to ask "what if": the model that was traced, and what `model(*inputs)` takes. Each answer
            runs it twice on the CPU or wherever its weights are, with the weights that it has at that moment.
        title: what is shown, best as a finding.

    Raises:
        ValueError: the parts do not fit together.
    """

    _esm = packed_script()

    meta = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        trace: Trace | str | Path | Mapping[object, Trace],
        *,
        series: ArrayLike | None = None,
        tokens: Sequence[str] | Sequence[Sequence[str]] | None = None,
        steps: ArrayLike | None = None,
        model: nn.Module | None = None,
        inputs: Tensor | Sequence[Tensor | None] | None = None,
        title: str = "",
    ) -> None:
        if isinstance(trace, str | Path):
            trace = Trace.load(trace)
        traces = {"": trace} if isinstance(trace, Trace) else {str(label): one for label, one in trace.items()}
        if not traces:
            raise ValueError("there is no trace in the mapping; pass one, or {label: trace}.")
        if (model is None) != (inputs is None):
            raise ValueError("what-if needs both model= and inputs=; pass the model and what it was given.")
        length = next(iter(traces.values())).steps
        series = None if series is None else Series(series)
        if series is not None and series.values.shape[1] != length:
            raise ValueError(
                f"series has {series.values.shape[1]} steps, and the trace {length}; pass the same stretch."
            )
        self.answers = Answers(
            traces, series=series, tokens=text(tokens, length), axis=None if steps is None else axis(steps, length)
        )
        self.asking = None if model is None else Asking(model, inputs)
        self._asked = 0
        super().__init__(meta=self._describe(title))
        self.on_msg(self._receive)

    def _describe(self, title: str) -> dict:
        """All that the view knows before it asks."""
        answers = self.answers
        return {
            "title": title,
            "opening": answers.opening,
            "labels": [described(label, trace, answers.first) for label, trace in answers.traces.items()],
            "batch": answers.batch,
            "cells": [{"path": cell, "kind": kind_of_cell(answers.first, cell)} for cell in answers.cells],
            "quantities": {
                name: {
                    "kind": kind_of(name),
                    "meaning": NAMES[name].meaning if name in NAMES else "",
                    "places": [list(place) for place in places],
                }
                for name, places in answers.places.items()
            },
            "left_out": answers.left_out,
            "series": 0 if answers.series is None else answers.series.values.shape[2],
            "tokens": answers.tokens is not None,
            "axis": None if answers.axis is None else even(answers.axis),
            "what_if": None if self.asking is None else self.asking.options(),
            "colours": COLOURS,
            "palette": PALETTE[:6],
        }

    def answer(self, request: Mapping[str, object]) -> Answer:
        """The answer to one request of the view, as JSON and bytes; `workbench.widgets.answers` lists most of them.

        Raises:
            ValueError, KeyError: there is no such thing.
        """
        if request.get("ask") == "what_if":
            return self._what_if(request)
        if request.get("ask") == "page":
            return {"name": f"{self.meta['title'] or 'scope'}.html"}, [page(self, megabytes=BUTTON_MEGABYTES).encode()]
        return self.answers.answer(request)

    def _what_if(self, request: Mapping[str, object]) -> Answer:
        if self.asking is None:
            raise ValueError("what-if needs a model; make the scope with model= and inputs=.")
        edits = edits_of(request)
        result = self.asking.run(edits)
        found = change(result, edits, int(request.get("batch", 0)))
        self._asked += 1
        label = f"#{self._asked}"
        self.answers.add(f"after{label}", result.after, result.after.steps)
        self.answers.add(f"difference{label}", Difference(result.after, result.before), result.after.steps)
        lines = [np.ascontiguousarray(line, dtype=np.float32).tobytes() for line in found[1:]]
        return found.said | {"label": label, "steps": result.after.steps}, lines

    def _receive(self, _: object, content: dict, __: object) -> None:
        """One request of a view: the answer goes back under its number, an error as its words."""
        number = content.pop("number", None)
        try:
            said, buffers = self.answer(content)
        except Exception as error:  # whatever it is, the view must not wait for ever
            words = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            self.send({"number": number, "error": words or type(error).__name__})
            if not isinstance(error, (KeyError, ValueError)):
                raise
            return
        self.send({"number": number, "said": said}, buffers)

    def export(
        self,
        path: str | Path,
        *,
        names: Sequence[str] = ("*",),
        what_if: Mapping[str, Sequence[float]] | None = None,
        megabytes: float = 20.0,
    ) -> Path:
        """Write the view as one HTML file that works without a kernel, a server or a network.

        Args:
            path: where; its folder is made.
            names: which quantities, as patterns, such as "*.forget".
            what_if: values to force, whose answers are computed now: {"blocks.0.cell.forget": [0.1, 0.5, 0.9]}.
            megabytes: about how large it may become. Where it would be larger, single steps are left out, and the
                page says how many steps each of its columns pools.

        Raises:
            ValueError: not even the coarsest columns fit, or no quantity has such a name.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(self, names=names, what_if=what_if or {}, megabytes=megabytes), encoding="utf-8")
        return path

    def __repr__(self) -> str:
        return still(self.answers, self.meta)[0]

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """The widget, and a small drawing with its numbers for where no widget can be."""
        bundle, metadata = super()._repr_mimebundle_(**options)
        words, drawing = still(self.answers, self.meta)
        return {**bundle, "text/plain": words, "text/html": drawing}, metadata


def described(label: str, trace: Trace, first: Trace) -> dict:
    """What the view says of one trace."""
    notes = list(trace.notes)
    odd = [] if trace is first else [words for words in first.differences(trace) if words != "the weights differ"]
    if odd:
        notes.append(f"not the model of the first trace: {'; '.join(odd[:3])}")
    error = float(trace.error)
    return {
        "label": label,
        "steps": trace.steps,
        "error": error if math.isfinite(error) else None,
        "checked": bool(trace.exactness),
        "notes": notes,
    }


def kind_of_cell(trace: Trace, cell: str) -> str:
    """The class of a cell, where the trace says it."""
    return str(trace.cells.get(cell, {}).get("kind", ""))


def text(tokens: Sequence[str] | Sequence[Sequence[str]] | None, length: int) -> list[list[str]] | None:
    """Tokens of each sequence."""
    if tokens is None:
        return None
    tokens = list(tokens)
    rows = [tokens] if all(isinstance(token, str) for token in tokens) else [list(map(str, row)) for row in tokens]
    if wrong := [len(row) for row in rows if len(row) != length]:
        raise ValueError(
            f"there are {wrong[0]} tokens, and the trace has {length} steps; pass one token for each step."
        )
    return rows


def axis(steps: ArrayLike, length: int) -> np.ndarray:
    """Positions on the time axis."""
    found = np.asarray(steps)
    if found.shape != (length,):
        raise ValueError(
            f"steps has shape {found.shape}, and the trace has {length} steps; pass one position per step."
        )
    return found.astype("datetime64[us]") if found.dtype == object else found
