"""The report of a run: true, complete, harmless, and drawn without a network."""

import json
import re
import shutil
import subprocess
import types
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest

from workbench import plots
from workbench.batch.outputs import without_ansi
from workbench.batch.report import asset, write_report
from workbench.runs.folder import Run
from workbench.runs.status import Failure, Status

PLOTLY = "application/vnd.plotly.v1+json"
ESSAY = r"""# What the memory keeps

The cell follows $c_t = f_t c_{t-1}$ and

$$h_t = o_t \odot \frac{c_t}{n_t}$$

See [the paper](https://arxiv.org/abs/2405.04517). ![a plan](https://example.org/plan.png)

## The data & more

## The data & more
"""


def markdown(text):
    return nbformat.v4.new_markdown_cell(text)


def code(source, *outputs, **metadata):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def shown(**data):
    names = {"html": "text/html", "plain": "text/plain", "plotly": PLOTLY, "png": "image/png", "svg": "image/svg+xml"}
    return nbformat.v4.new_output("display_data", data={names[name]: value for name, value in data.items()})


def printed(text):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def gates(title="Gates follow the day"):
    fig = plots.gate_heatmap(np.random.default_rng(0).uniform(size=(200, 8)), title=title)
    return fig, shown(plotly={**json.loads(fig.to_json()), "config": {"showSendToCloud": True}}, plain="figure")


@pytest.fixture
def report(tmp_path):
    """Writes a run of these cells and returns its report as text."""

    def make(*cells, status=None, notebook=True):
        run = Run.create("essay", root=tmp_path, params={"seed": 3, "model": {"width": 64}})
        if notebook:
            nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), run.path / "notebook.ipynb")
        if status is not None:
            status.write(run.path)
        path = write_report(run)
        assert path == run.path / "report.html"
        return path.read_text(encoding="utf-8")

    return make


class Tags(HTMLParser):
    """Collects every tag with its attributes, and the text of styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.styles, self._in = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._in = tag

    def handle_data(self, data):
        self.styles += data if self._in == "style" else ""

    def named(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def assert_loads_nothing(text):
    page = Tags(text)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "video", "audio"}
    for tag, attrs in page.tags:
        for name, value in attrs.items():
            if tag == "a" and name == "href":
                continue
            assert not re.search(r"(?:https?:|^|url\(['\"]?)//", value), (tag, name, value)
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
    assert not any("src" in attrs for attrs in page.named("script"))
    assert not re.search(r"@import|url\((?!['\"]?data:)", page.styles)
    assert "default-src 'none'" in page.named("meta")[2]["content"]


def test_a_finished_run_says_so(report):
    text = report(markdown(ESSAY), code("1 + 1"), status=Status(state="ok", cells=1, seconds=103.2))
    assert "<strong>Finished: all 1 cells ran</strong>" in text
    assert "took 1 min 43 s" in text
    assert "seed 3" in text
    assert "<h1>What the memory keeps</h1>" in text
    assert text.count("What the memory keeps") == 2  # title and heading
    assert '<th scope="row">model.width</th><td>64</td>' in text
    assert '<html lang="en">' in text


def test_a_failed_run_names_cell_message_and_hint(report):
    error = nbformat.v4.new_output(
        "error", ename="ValueError", evalue="width<3", traceback=["\x1b[0;31mCell\x1b[0m \x1b]8;;x\x07line 1"]
    )
    cells = [code("a = 1"), code("b = <2", error), code("later", papermill={"status": "pending"})]
    failure = Failure(name="ValueError", value="width<3", hint="Try width=4.")
    text = report(*cells, status=Status(state="failed", cell=2, cells=3, error=failure))
    assert 'Failed, in <a href="#cell-2">cell 2 of 3</a>' in text
    assert "<b>ValueError</b>: width&lt;3" in text
    assert "Try width=4." in text
    assert "Code of cell 2 · the run ended here" in text
    assert "Code of cell 3 · not run" in text
    assert "Cell line 1" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("state", "words"),
    [("killed", "Killed"), ("oom", "Out of memory"), ("timeout", "Took too long"), ("interrupted", "Interrupted")],
)
def test_every_ending_has_words(report, state, words):
    assert f"<strong>{words}, in cell 4 of 9</strong>" in report(status=Status(state=state, cell=4, cells=9))


def test_a_run_without_a_notebook_still_has_a_report(report):
    text = report(notebook=False, status=Status(state="killed"))
    assert "The run ended before its notebook was saved" in text
    assert "plotly.js v" not in text


def test_an_empty_folder_still_has_a_report(tmp_path):
    assert "Not started" in write_report(types.SimpleNamespace(path=tmp_path)).read_text()


def test_a_damaged_notebook_is_said(tmp_path):
    (tmp_path / "notebook.ipynb").write_text('{"cells": [')
    (tmp_path / "status.json").write_text("{")
    assert "could not be read" in write_report(types.SimpleNamespace(path=tmp_path)).read_text()


def test_nothing_half_written_is_left(report, tmp_path):
    report(markdown("hello"))
    assert [path.name for path in tmp_path.glob("*/*") if "tmp" in path.name] == []


def test_figures_are_kept_whole_and_described(report):
    fig, output = gates("Open at <night>")
    text = report(code("draw()", output))
    data = json.loads(re.search(r'id="data-1">(.*?)</script>', text)[1])
    assert data["data"][0]["z"]["bdata"]
    assert data["layout"]["meta"]["alt"] == fig.layout.meta["alt"]
    assert "template" not in data["layout"]
    assert f"<b>Figure 1.</b> {fig.layout.meta['alt'].replace('<', '&lt;').replace('>', '&gt;')}" in text
    assert text.count("plotly.js v") == 1


def test_saved_captions_come_with_their_figure(report, tmp_path):
    fig, output = gates()
    run = Run.create("essay", root=tmp_path / "other")
    run.figure(fig, "gates", "The gates of head 3.")
    nbformat.write(nbformat.v4.new_notebook(cells=[code("draw()", output)]), run.path / "notebook.ipynb")
    assert "<b>Figure 1.</b> The gates of head 3." in write_report(run).read_text()


def test_no_cloud_is_offered_whatever_the_notebook_says(report):
    text = report(code("draw()", gates()[1]))
    settings = json.loads(re.search(r'id="settings">(.*?)</script>', text)[1])
    assert settings["config"]["showSendToCloud"] is False
    assert settings["config"]["displaylogo"] is False


def test_a_report_with_figures_stays_small(report):
    assert len(report(*[code("draw()", gates()[1]) for _ in range(10)]).encode()) < 8e6


def test_formulas_become_mathml_and_headings_a_table_of_contents(report):
    text = report(markdown(ESSAY))
    assert text.count("<math") == 2
    assert "<mfrac><mrow><msub><mi>c</mi><mi>t</mi></msub></mrow>" in text.replace(" ", "")
    assert '<h2 id="the-data-more">' in text
    assert '<li class="level-2"><a href="#the-data-more-2">The data &amp; more</a></li>' in text
    assert_loads_nothing(text)


@pytest.mark.parametrize(
    "attack",
    [
        '<script src="https://evil.example/x.js"></script>',
        "<script>alert(1)</script>",
        '<img src="https://evil.example/x.png" onerror="alert(1)">',
        '<img src=x onerror=alert(1)><svg onload="alert(1)"></svg>',
        '<link rel="stylesheet" href="https://evil.example/x.css">',
        '<style>@import "https://evil.example/x.css"; p { background: url(https://evil.example/x.png) }</style>',
        '<p style="background-image: url(//evil.example/x.png)">text</p>',
        '<iframe src="https://evil.example"></iframe><object data="https://evil.example"></object>',
        '<base href="https://evil.example/"><meta http-equiv="refresh" content="0;url=https://evil.example">',
        '<svg><image href="https://evil.example/x.svg"/><use xlink:href="https://evil.example/x.svg#a"/></svg>',
        '<video poster="https://evil.example/x.png"><source src="//evil.example/x.mp4"></video>',
        '<form action="https://evil.example"><input type="text"><button formaction="//evil.example">x</button></form>',
        '<table background="https://evil.example/x.png"><tr><td>1</td></tr></table>',
        "</div></section></article></main><script>alert(1)</script>",
        "<scr<script>ipt>alert(1)</scr</script>ipt>",
        "<!--><script>alert(1)</script>-->",
        '<a href="javascript:alert(1)">x</a><a href="data:text/html,x">y</a>',
    ],
)
def test_html_from_cells_and_prose_is_made_harmless(report, attack):
    text = report(markdown(f"Some prose.\n\n{attack}\n\nMore."), code("show()", shown(html=f"<b>bold</b>{attack}")))
    assert_loads_nothing(text)
    assert "<script" not in text.lower()
    assert not re.search(r'href="(javascript|data):', text)
    assert "<b>bold</b>" in text
    assert text.count("<main") == text.count("</main>") == 1
    assert text.index("</article>") > text.index("<b>bold</b>")


def test_tables_keep_their_shape_and_their_styles_stay_inside(report):
    table = "<style>td { color: red }</style><table border='1'><tr><td>&lt;1&nbsp;km</td></tr></table>"
    text = report(code("df", shown(html=table, plain="text")))
    assert "<table><tr><td>&lt;1&nbsp;km</td></tr></table>" in text
    assert "@scope { td { color: red } }" in text
    assert "text</pre>" not in text


def test_script_only_html_falls_back_to_text(report):
    text = report(code("w", shown(html="<div><script>draw()</script></div>", plain="Widget(value=3)")))
    assert "Widget(value=3)</pre>" in text


def test_pictures_are_embedded(report):
    text = report(code("p", shown(png="iVBORw0KGgo=\n"), shown(svg="<svg onload='x()'></svg>")))
    assert 'alt="Picture from cell 1" src="data:image/png;base64,iVBORw0KGgo="' in text
    assert 'src="data:image/svg+xml;base64,' in text
    assert_loads_nothing(text)


def test_text_is_shown_as_it_looked_at_the_end(report):
    assert without_ansi("1%\r50%\r100%\r\nok\x1b[31m!\x1b[0m") == "100%\nok!"
    text = report(code("x", printed("a < b & c\n"), printed("z" * 30_000)))
    assert "a &lt; b &amp; c</pre>" in text
    assert "10,000 more characters in notebook.ipynb" in text


def test_cells_are_numbered_as_the_status_counts_them(report):
    cells = [
        code("seed = 0", tags=["parameters"]),
        code("seed = 3", tags=["injected-parameters"]),
        code("   "),
        markdown("**papermill** banner"),
        code("2 + 2"),
    ]
    cells[3].metadata["tags"] = ["papermill-error-cell-tag"]
    text = report(*cells)
    assert re.findall(r"<summary>([^<]*)</summary>", text)[1:] == [
        "Code of cell 1",
        "Parameters given to this run",
        "Code of cell 2",
    ]
    assert "banner" not in text


def test_results_become_tables(tmp_path):
    run = Run.create("essay", root=tmp_path)
    run.out("errors", {"LSTM": {"mae": 8.1234567, "rank": 2}, "xLSTM": {"mae": 7.5, "rank": 1}})
    run.out("seconds", 12.0)
    text = write_report(run).read_text()
    assert '<th scope="col">mae</th><th scope="col">rank</th>' in text
    assert '<th scope="row">LSTM</th><td>8.123</td><td>2</td>' in text
    assert '<th scope="row">seconds</th><td>12</td>' in text


def luminance(colour):
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_text_is_readable_in_light_and_in_dark(theme):
    block = re.findall(r":root \{(.*?)\}", asset("report.css"), re.DOTALL)[theme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    pages = {
        "page": ["text", "quiet", "link"],
        "raised": ["text", "quiet", "keyword", "string", "number", "comment", "name"],
        "good-page": ["good", "text"],
        "bad-page": ["bad", "text", "quiet"],
        "open-page": ["open", "text"],
    }
    for page, texts in pages.items():
        for text in texts:
            low, high = sorted((luminance(colours[page]), luminance(colours[text])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (page, text)


def browser():
    """A browser's path; without one the test cannot run, which on CI is a failure."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-headless-shell"))), None)
    if found is None:
        pytest.skip("needs chromium")
    return found


def visit(path, tmp_path, *flags):
    """The page as a browser without a network leaves it, and what it said on its console."""
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-component-update", "--disable-sync", "--disable-default-apps", "--proxy-server=127.0.0.1:9",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=30000", "--enable-logging=stderr", *flags,
        "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("flags", [[], ["--blink-settings=preferredColorScheme=0"], ["--window-size=420,900"]])
def test_a_browser_draws_every_figure_without_complaint(tmp_path, flags):
    run = Run.create("essay", root=tmp_path)
    line = plots.forecast(np.arange(40), np.arange(30.0), np.arange(10.0), {"naive": np.ones(10)}, title="word " * 30)
    drawings = [shown(plotly=json.loads(line.to_json())), gates()[1]]
    nbformat.write(nbformat.v4.new_notebook(cells=[markdown(ESSAY), code("x", *drawings)]), run.path / "notebook.ipynb")
    dom, said = visit(write_report(run), tmp_path, *flags)
    assert said == []
    assert 'data-drawn="2"' in dom
    assert dom.count('class="main-svg"') >= 4  # two layers a figure
    assert "heatmaplayer" in dom
    tools = re.findall(r'<(\w+) [^>]*class="modebar-btn[^>]*aria-label="[^"]+"[^>]*>', dom)
    assert len(tools) >= 8  # the tools of both figures
    assert set(tools) == {"button"} or dom.count('role="button"') >= len(tools)
    assert not re.search("cloud", " ".join(re.findall(r'data-title="([^"]*)"', dom)), re.IGNORECASE)
