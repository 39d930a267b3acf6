"""A real JupyterLab on loopback, and a real browser that tells what it asked for and what went wrong.

Nothing of the person's own Jupyter is read or written: configuration, data, runtime and settings are temporary.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium")
# No sandbox, because CI runs as root in a container; the rest keeps the browser itself from calling home.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
CALLERS = (  # parts of JupyterLab that ask the network for news and packages
    "@jupyterlab/apputils-extension:announcements",
    "@jupyterlab/extensionmanager-extension",
)
LOOPBACK = ("127.0.0.1", "localhost", "::1", "")  # "": data: and blob: have no host
QUIET = ("warning", "info", "log", "debug", "startGroup", "startGroupCollapsed", "endGroup", "timeEnd", "trace")


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address, its token, the folder that it serves."""

    url: str
    token: str
    folder: Path

    def save(self, name: str, *cells: str) -> Path:
        """A notebook of code cells in the folder."""
        import nbformat

        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.folder / name
        nbformat.write(nb, path)
        return path

    def quiet(self) -> None:
        """Shut every kernel down: a test leaves none for the next."""
        for session in json.loads(self._ask("GET", "sessions")):
            self._ask("DELETE", f"sessions/{session['id']}")

    def _ask(self, method: str, what: str) -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{what}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read()

    def address(self, notebook: Path) -> str:
        """Where a notebook is opened, alone and without the panels of another session."""
        place = notebook.relative_to(self.folder)
        return f"{self.url}/lab/tree/{place}?reset&token={self.token}"


@dataclass
class Noise:
    """What a page asked for outside of this machine, and what went wrong in it."""

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    expected: str = ""  # a text by which an error that a test provokes is known
    provoked: list[str] = field(default_factory=list)

    def watch(self, page: object) -> None:
        """Listen to a page from its first request on."""
        page.on("request", lambda request: self._host(request.url))
        page.on("websocket", lambda stream: self._host(stream.url))
        page.on("pageerror", lambda error: self._error(f"page: {error}"))
        page.on("console", self._console)

    def _host(self, url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and (urlsplit(url).hostname or "") not in LOOPBACK:
            self.outside.append(url)

    def _console(self, message: object) -> None:
        if message.type not in QUIET:
            self._error(f"{message.type}: {message.text} ({(message.location or {}).get('url', '')})")

    def _error(self, text: str) -> None:
        (self.provoked if self.expected and self.expected in text else self.errors).append(text)


@pytest.fixture(scope="session")
def artefacts(root_folder) -> Path:
    """Where screenshots are kept."""
    folder = Path(os.environ.get("WORKBENCH_ARTEFACTS") or root_folder / "build" / "browser")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def root_folder() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def lab(tmp_path_factory, root_folder) -> Iterator[Lab]:
    """JupyterLab on a free port, with a token, an empty configuration, and no part that calls home."""
    pytest.importorskip("jupyterlab")
    home, token = tmp_path_factory.mktemp("lab"), secrets.token_hex(16)
    for name in ("config", "data", "runtime", "settings", "workspaces", "notebooks", "home"):
        (home / name).mkdir()
    (home / "config" / "labconfig").mkdir()
    disabled = dict.fromkeys(CALLERS, True)
    (home / "config" / "labconfig" / "page_config.json").write_text(json.dumps({"disabledExtensions": disabled}))
    manager = home / "settings" / "@jupyter-widgets" / "jupyterlab-manager"
    manager.mkdir(parents=True)  # off by default; on, a notebook is as large as it can get
    (manager / "plugin.jupyterlab-settings").write_text(json.dumps({"saveState": True}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "HOME": str(home / "home"),
        "IPYTHONDIR": str(home / "home"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": str(root_folder),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'notebooks'}",
        "--ServerApp.allow_root=True", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--ServerApp.terminals_enabled=False",
    ]  # fmt: skip
    with open(home / "log.txt", "wb") as log:
        server = subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        wait_for(server, f"http://127.0.0.1:{port}/api/status?token={token}", home / "log.txt")
        yield Lab(f"http://127.0.0.1:{port}", token, home / "notebooks")
    finally:
        server.send_signal(signal.SIGTERM)  # it takes its kernels with it
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(server: subprocess.Popen, url: str, log: Path, seconds: float = 60) -> None:
    """Wait until a server answers, or fail with the end of its log."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="package")  # its event loop must not run on under the tests of other packages
def browser() -> Iterator[object]:
    """Debian's chromium, headless."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.skip("needs playwright")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def noise() -> Noise:
    """What the pages of a test asked for outside, and what went wrong in them."""
    return Noise()


@pytest.fixture
def page(browser, request, artefacts, noise) -> Iterator[object]:
    """A page of an empty profile; when the test ends, nothing may have left the machine or gone wrong."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    context.set_default_timeout(30_000)
    context.on("page", noise.watch)
    yield context.new_page()
    for number, left in enumerate(context.pages if getattr(request.node, "failed", False) else ()):
        left.screenshot(path=artefacts / f"FAILED-{request.node.name}-{number}.png")
    context.close()
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").quiet()
    assert noise.outside == [], "these requests left the machine"
    assert noise.errors == [], "these errors were in the browser's console"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    """Let fixtures know that their test failed, for a last screenshot."""
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed
    return report
