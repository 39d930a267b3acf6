"""The look of every figure: colours, templates, titles, and the text that stands in for the picture.

References:
    Okabe & Ito (2008), Color Universal Design: hues that survive every common colour blindness.
    Nuñez, Anderton & Renslow (2018), Optimizing colormaps with consideration for color vision
        deficiency (cividis), doi:10.1371/journal.pone.0199239.
"""

import textwrap
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import plotly.io

# Passed to each renderer and HTML export: without it plotly offers to upload the figure.
CONFIG = {
    "showSendToCloud": False,
    "displaylogo": False,
    "responsive": True,
    "scrollZoom": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"],
    "toImageButtonOptions": {"scale": 2},
}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
SEQUENTIAL = "Cividis"
DIVERGING = "PuOr"
DIVERGING_SIGNED = "RdBu"
# Okabe-Ito hues, moved in lightness until each has 3:1 contrast on white and on the Lab's dark page.
PALETTE = ("#005CD1", "#C58607", "#00824E", "#AD4000", "#4691D9", "#8E4D7A", "#8B8B8B")
DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot", "solid")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x")

TITLE_SIZE, SUBTITLE_SIZE, TEXT_SIZE = 16, 13, 12
TITLE_COLUMNS, SUBTITLE_COLUMNS = 74, 100
HEAD = 14  # px above the title
MARK = "workbench"  # the `uirevision` of our templates; also how the report recognises them


class Tokens(NamedTuple):
    """The colours of one template that are not data."""

    text: str
    grid: str
    axis: str
    paper: str


# One grey cannot have 4.5:1 on white and on #111111; this one has 4.3:1 on both, the most there is.
EITHER = Tokens(text="#797979", grid="rgba(128,128,128,0.22)", axis="#797979", paper="rgba(0,0,0,0)")
LIGHT = Tokens(text="#2A2D31", grid="#E6E8EB", axis="#8A9099", paper="rgba(0,0,0,0)")
DARK = Tokens(text="#E4E6EA", grid="#2E3238", axis="#7B828C", paper="rgba(0,0,0,0)")
PAPER = LIGHT._replace(paper="#FFFFFF")


class Category(NamedTuple):
    """How one name in a legend is drawn: never by colour alone."""

    colour: str
    dash: str
    marker: str


def categories(names: list[str], where: str) -> dict[str, Category]:
    """One look per name, in the order given."""
    if len(names) > len(PALETTE):
        raise ValueError(
            f"{where} got {len(names)} names, and draws at most {len(PALETTE)} in one panel; "
            "pass fewer, or draw several figures."
        )
    looks = zip(PALETTE, DASHES, MARKERS, strict=True)
    return {name: Category(*look) for name, look in zip(names, looks, strict=False)}


def faded(colour: str, alpha: float) -> str:
    """The colour `#rrggbb` with an opacity, as plotly reads it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def template(tokens: Tokens) -> go.layout.Template:
    """A plotly template: calm axes, left title, type of at least 12 px, lines of at least 1.5 px."""
    axis = {
        "gridcolor": tokens.grid,
        "linecolor": tokens.axis,
        "tickcolor": tokens.axis,
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "automargin": True,
        "showline": True,
        "tickfont": {"size": TEXT_SIZE},
        "title": {"font": {"size": 13}, "standoff": 8},
    }
    bar = {
        "thickness": 12,
        "outlinewidth": 0,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": tokens.axis,
        "tickfont": {"size": TEXT_SIZE},
        "title": {"font": {"size": 13}, "side": "right"},
        "xpad": 0,
        "ypad": 0,
    }
    layout = {
        "paper_bgcolor": tokens.paper,
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": tokens.text},
        "title": {
            "x": 0,
            "xanchor": "left",
            "yanchor": "top",
            "yref": "container",
            "pad": {"l": 12},
            "font": {"size": TITLE_SIZE, "color": tokens.text, "weight": 600},
        },
        "colorway": list(PALETTE),
        "colorscale": {"sequential": SEQUENTIAL, "diverging": DIVERGING},
        "coloraxis": {"colorbar": bar},
        "xaxis": axis | {"showgrid": False},
        "yaxis": axis | {"showline": False, "ticks": "", "ticklabelstandoff": 4},
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
        "annotationdefaults": {"showarrow": False, "font": {"size": TEXT_SIZE}, "arrowcolor": tokens.axis},
        "shapedefaults": {"line": {"color": tokens.axis, "width": 1.5}},
        "legend": {"font": {"size": TEXT_SIZE}, "orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": tokens.axis, "activecolor": tokens.text},
        "uirevision": MARK,
    }
    scatter = {"line": {"color": tokens.text, "width": 1.8}, "marker": {"color": tokens.text, "size": 8}}
    return go.layout.Template(layout=layout, data={"scatter": [scatter]})


def register() -> None:
    """Make our templates known to plotly by name; none becomes plotly's default."""
    for name, tokens in {"": EITHER, "_light": LIGHT, "_dark": DARK, "_paper": PAPER}.items():
        plotly.io.templates[MARK + name] = template(tokens)


register()


def heading(title: str, subtitle: str) -> tuple[str, int]:
    """The title as plotly text, wrapped, and the height that it needs in px."""
    lines = textwrap.wrap(title, TITLE_COLUMNS) if title else []
    below = textwrap.wrap(subtitle, SUBTITLE_COLUMNS) if subtitle else []
    text = "<br>".join(lines)
    if below:
        text += "<br>" if lines else ""
        text += f"<span style='font-size:{SUBTITLE_SIZE}px;font-weight:400'>{'<br>'.join(below)}</span>"
    return text, 22 * len(lines) + 20 * len(below)


def finish(
    fig: go.Figure, *, title: str, subtitle: str = "", alt: str, panel: int, margin: dict[str, int] | None = None
) -> go.Figure:
    """Give a figure its template, title, fixed height and text alternative.

    Args:
        fig: the figure, traces and axes in place.
        title: what it shows, best as the finding.
        subtitle: how it was made: pooling, ranges, what is missing.
        alt: the text that stands in for the picture.
        panel: height of the plotting area in px; the title's height comes on top.
        margin: px of `l`, `r`, `t`, `b`, where `t` is the space between title and panel.
    """
    space = {"l": 64, "r": 24, "t": 18, "b": 56} | (margin or {})
    text, used = heading(title, subtitle)
    space["t"] += used + HEAD
    height = panel + space["t"] + space["b"]
    fig.update_layout(
        template=MARK,
        title={"text": text, "y": 1 - (HEAD + (12 if "<br>" in text else 0)) / height},
        height=height,
        margin=space,
        uirevision=MARK,
        meta={"alt": alt, "title": title, "subtitle": subtitle},
    )
    return fig


def glyph(look: Category | None, name: str) -> str:
    """A direct label: a coloured stroke, then the name in the colour of text."""
    colour = f" style='color:{look.colour}'" if look else ""
    return f"<span{colour}><b>━</b></span> {name}"


def power_of_ten(exponent: float) -> str:
    """A tick of a log axis: 0.01, 1, 100, or 10⁻⁶ where zeros would have to be counted."""
    if abs(exponent) <= 2 or exponent != int(exponent):
        return number(10.0**exponent)
    return "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def number(value: float) -> str:
    """A number for prose: three significant digits, thousands with commas."""
    if not np.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def moment(value: object) -> str:
    """A place on the time axis for prose: a clock time, or a number."""
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[m]")).replace("T", " ")
    return number(float(value))


def counted(count: int, what: str) -> str:
    """A count with its noun: 1 step, 8,064 steps."""
    plural = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{plural}"


def missing(count: int, what: str = "value", how: str = "drawn as gaps") -> str:
    """A sentence on gaps, or nothing."""
    return f"{counted(count, f'missing {what}')} {how}" if count else ""


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def joined(*parts: str) -> str:
    """The parts that are not empty, with dots between them."""
    return " · ".join(part for part in parts if part)


def sentences(*parts: str) -> str:
    """The parts that are not empty, each ended by a full stop."""
    return " ".join(part.rstrip(".") + "." for part in parts if part)
