"""The look: colours that everyone can tell apart, text that everyone can read, titles that fit."""

import itertools
import pkgutil
import subprocess
import sys

import numpy as np
import plotly.colors
import plotly.io
import pytest

from workbench.plots import style

LAB_LIGHT, LAB_DARK = "#FFFFFF", "#111111"
REPORT_DARK = "#111418"

# Machado, Oliveira & Fernandes (2009), A Physiologically-based Model for Simulation of Color Vision
# Deficiency, IEEE TVCG 15(6), supplementary table, severity 1.0; for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# IEC 61966-2-1: linear sRGB to XYZ, white D65.
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    """A colour `#rrggbb` or `rgb(r, g, b)` as linear RGB in 0 ... 1."""
    if colour.startswith("#"):
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    else:
        channels = np.array(plotly.colors.unlabel_rgb(colour))
    channels = channels / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* of linear RGB."""
    t = XYZ @ np.clip(rgb, 0, 1) / (XYZ @ np.ones(3))
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def delta_e(one, two):
    """CIEDE2000; Sharma, Wu & Dalal (2005), The CIEDE2000 color-difference formula, Eqs. 2-22."""
    (l1, a1, b1), (l2, a2, b2) = one, two
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(mean**7 / (mean**7 + 25**7)))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    h = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    lightness, c = (l1 + l2) / 2, (c1 + c2) / 2
    t = 1 - 0.17 * np.cos(np.radians(h - 30)) + 0.24 * np.cos(np.radians(2 * h))
    t += 0.32 * np.cos(np.radians(3 * h + 6)) - 0.20 * np.cos(np.radians(4 * h - 63))
    sl = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t
    rt = -2 * np.sqrt(c**7 / (c**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))
    terms = (l2 - l1) / sl, (c2 - c1) / sc, dh / sh
    return np.sqrt(sum(term**2 for term in terms) + rt * terms[1] * terms[2])


def contrast(one, two):
    """WCAG 2 contrast ratio."""
    high, low = sorted((XYZ[1] @ linear(one), XYZ[1] @ linear(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_delta_e_agrees_with_the_published_examples():
    # Sharma et al. (2005), Table 1, pairs 1, 7, 17, 25.
    assert delta_e((50, 2.6772, -79.7751), (50, 0, -82.7485)) == pytest.approx(2.0425, abs=1e-4)
    assert delta_e((50, 0, 0), (50, -1, 2)) == pytest.approx(2.3669, abs=1e-4)
    assert delta_e((50, 2.5, 0), (73, 25, -18)) == pytest.approx(27.1492, abs=1e-4)
    assert delta_e((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387)) == pytest.approx(1.2644, abs=1e-4)


@pytest.mark.parametrize("vision", VISION)
def test_categories_differ_for_every_eye(vision):
    seen = [lab(np.asarray(VISION[vision]) @ linear(colour)) for colour in style.PALETTE]
    assert min(delta_e(one, two) for one, two in itertools.combinations(seen, 2)) >= 12


def test_simulation_can_fail():
    # plotly's own red and green, which deuteranopes confuse.
    red, green = (lab(np.asarray(VISION["deuteranopia"]) @ linear(c)) for c in ("#C44E52", "#8C8C3A"))
    assert delta_e(red, green) < 12


def test_a_category_is_never_colour_alone():
    looks = style.categories([f"model {i}" for i in range(6)], "forecast")
    assert len({look.dash for look in looks.values()}) == len({look.marker for look in looks.values()}) == 6


def test_too_many_categories_are_refused():
    with pytest.raises(ValueError, match="forecast got 8 names, and draws at most 7"):
        style.categories([str(i) for i in range(8)], "forecast")


@pytest.mark.parametrize("scale", [style.SEQUENTIAL])
def test_sequential_scale_rises_in_lightness(scale):
    positions = np.linspace(0, 1, 101)
    colours = plotly.colors.sample_colorscale(scale, positions.tolist())
    lightness = np.array([lab(linear(colour))[0] for colour in colours])
    assert (np.diff(lightness) > 0).all()


@pytest.mark.parametrize("scale", [style.DIVERGING, style.DIVERGING_SIGNED])
def test_diverging_scale_is_lightest_in_the_middle(scale):
    colours = plotly.colors.sample_colorscale(scale, np.linspace(0, 1, 101).tolist())
    lightness = np.array([lab(linear(colour))[0] for colour in colours])
    assert lightness.argmax() == 50
    assert lightness[50] > 95


@pytest.mark.parametrize("page", [LAB_LIGHT, LAB_DARK, REPORT_DARK])
def test_marks_stand_out_on_both_pages(page):
    assert min(contrast(colour, page) for colour in style.PALETTE) >= 3


def test_text_is_readable_on_its_page():
    assert contrast(style.LIGHT.text, LAB_LIGHT) >= 4.5
    assert contrast(style.DARK.text, LAB_DARK) >= 4.5
    assert contrast(style.DARK.text, REPORT_DARK) >= 4.5
    # One colour for a page that may be either cannot do better than 4.35 on both.
    assert min(contrast(style.EITHER.text, page) for page in (LAB_LIGHT, LAB_DARK)) >= 4.3


def test_axes_stand_out_on_their_page():
    assert contrast(style.LIGHT.axis, LAB_LIGHT) >= 3
    assert contrast(style.DARK.axis, LAB_DARK) >= 3


@pytest.mark.parametrize("name", ["workbench", "workbench_light", "workbench_dark", "workbench_paper"])
def test_templates_are_legible_and_steady(name):
    layout = plotly.io.templates[name].layout
    sizes = [layout.font.size, layout.title.font.size, layout.xaxis.tickfont.size, layout.annotationdefaults.font.size]
    assert min(sizes) >= 12
    assert plotly.io.templates[name].data.scatter[0].line.width >= 1.5
    assert layout.uirevision == style.MARK
    assert layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert (layout.paper_bgcolor == "#FFFFFF") == (name == "workbench_paper")


def test_templates_leave_plotlys_default_alone():
    assert "workbench" not in plotly.io.templates.default


def test_nothing_is_offered_to_a_cloud():
    assert style.CONFIG["showSendToCloud"] is False
    assert style.CONFIG["displaylogo"] is False


def test_long_titles_are_wrapped_and_get_their_room():
    import plotly.graph_objects as go

    short = style.finish(go.Figure(), title="short", alt="a", panel=200)
    long = style.finish(go.Figure(), title="a long finding " * 12, alt="a", panel=200)
    assert max(map(len, long.layout.title.text.split("<br>"))) <= style.TITLE_COLUMNS
    assert long.layout.height > short.layout.height
    assert long.layout.height - long.layout.margin.t == short.layout.height - short.layout.margin.t


def test_package_needs_no_plotly_until_a_plot_is_made():
    code = (
        "import sys; sys.modules['plotly'] = None\n"
        "from workbench import plots\n"
        "assert 'forecast' in dir(plots)\n"
        "try: plots.forecast\n"
        "except ImportError: print('asked')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "asked"


def test_unknown_plots_are_named():
    from workbench import plots

    with pytest.raises(AttributeError, match="it offers CONFIG, against_theory"):
        plots.heatmap  # noqa: B018


def test_no_plot_is_hidden_by_a_module_of_its_name():
    from workbench import plots

    modules = {module.name for module in pkgutil.iter_modules(plots.__path__)}
    assert modules.isdisjoint(plots.__all__)
    assert all(plots._HOME[name] in modules for name in plots.__all__)
