"""The set-up: it installs once, survives interruption, and says what to do where it cannot work.

install.py runs for real, in a small project of its own that needs no package index; a Python that lies about
itself (through `sitecustomize`) stands in for machines that are not this one.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SEVEN = {"jupyterlab", "torch", "xlstm", "ipywidgets", "plotly", "optuna", "papermill"}
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "workbench"
version = "1.0"
requires-python = ">=3.11,<3.15"
"""
BACKEND = '''
import os, time, zipfile

METADATA = """Metadata-Version: 2.1
Name: workbench
Version: 1.0
Provides-Extra: one
Provides-Extra: two
Provides-Extra: more
Requires-Dist: six==1.17.0; extra == "more"
"""

def build_editable(folder, config_settings=None, metadata_directory=None):
    if os.path.exists("slow"):
        open("building", "w").close()
        time.sleep(float(open("slow").read()))
    name, info = "workbench-1.0-py3-none-any.whl", "workbench-1.0.dist-info/"
    files = {"workbench.pth": os.getcwd(), info + "METADATA": METADATA, info + "RECORD": ""}
    files[info + "WHEEL"] = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name

build_wheel = build_editable
'''


class Project:
    """A small project with our install.py, and a way to run it."""

    def __init__(self, folder: Path, root: Path):
        self.folder, self.venv, self.stamp = folder, folder / ".venv", folder / ".venv" / "workbench-stamp.json"
        (folder / "workbench").mkdir(parents=True)
        shutil.copy(root / "workbench" / "install.py", folder / "workbench")
        (folder / "workbench" / "__init__.py").touch()
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "constraints.txt").write_text("# a comment\nsix==1.17.0\n")
        (folder / "backend.py").write_text(BACKEND)
        (folder / "empty").mkdir()

    def start(self, *, extras="one", python=sys.executable, wrapper=(), **environment) -> subprocess.Popen:
        """install.py as a process; pip sees a closed port in place of a package index."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        closed = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
        return subprocess.Popen(
            [*wrapper, str(python), "-I", "workbench/install.py", "--extras", extras],
            cwd=self.folder,
            env=kept | closed | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def set_up(self, **options) -> tuple[int, str]:
        """Exit status and output of install.py."""
        process = self.start(**options)
        output, _ = process.communicate()
        return process.returncode, output

    def lying_python(self, lie: str) -> Path:
        """A Python that runs `lie` before anything else."""
        folder = self.folder / "lying"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        next(folder.glob("lib/python3*/site-packages")).joinpath("sitecustomize.py").write_text(lie)
        return folder / "bin" / "python"

    def wait_for(self, path: str) -> None:
        """Until this file exists."""
        for _ in range(600):
            if (self.folder / path).exists():
                return
            time.sleep(0.1)
        raise AssertionError(f"{path} did not appear")


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Project:
    return Project(tmp_path / "project", root)


def test_install_parses_on_old_python(root):
    source = (root / "workbench" / "install.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__" not in source


def test_it_installs_once_and_again_only_for_a_reason(project):
    status, output = project.set_up()
    assert status == 0, output
    assert "Setting up .venv" in output
    assert "Set up in" in output

    (project.folder / "constraints.txt").write_text("# another comment\n\nsix==1.17.0\n")
    with (project.folder / "pyproject.toml").open("a") as file:
        file.write("[tool.ruff]\nline-length = 100\n")
    assert project.set_up() == (0, "")  # neither comments nor a linter's settings are a reason

    status, output = project.set_up(extras="two")
    assert (status, "Setting up" in output) == (0, True)
    assert json.loads(project.stamp.read_text())["extras"] == ["one", "two"]
    assert project.set_up(extras="one") == (0, "")

    (project.folder / "constraints.txt").write_text("six==1.16.0\n")
    status, output = project.set_up()
    assert (status, "Setting up" in output) == (0, True)


def test_a_venv_whose_python_is_gone_or_that_moved_is_made_again(project):
    assert project.set_up()[0] == 0
    python = project.venv / "bin" / "python"
    python.unlink()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    status, output = project.set_up()
    assert (status, "Setting up" in output) == (0, True)
    assert project.set_up() == (0, "")

    moved = project.folder.parent / "moved"
    project.folder.rename(moved)
    project.folder = moved
    status, output = project.set_up()
    assert (status, "Setting up" in output) == (0, True)
    assert str(moved) in (moved / ".venv" / "bin" / "pip").read_text()  # scripts name their Python


def test_an_interrupted_set_up_goes_on_where_it_stopped(project):
    (project.folder / "slow").write_text("60")
    process = project.start()
    project.wait_for("building")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Run the same command again" in output
    assert "fingerprint" not in json.loads(project.stamp.read_text())

    (project.folder / "slow").unlink()
    status, output = project.set_up()
    assert status == 0, output
    assert "fingerprint" in json.loads(project.stamp.read_text())


def test_two_at_once_take_turns(project):
    (project.folder / "slow").write_text("2")
    first = project.start()
    project.wait_for("building")
    status, output = project.set_up()
    assert (status, output) == (0, "Another set-up of this folder is at work; waiting for it.\n")
    assert first.communicate()[0].count("Set up in") == 1


def test_no_network_is_named(project):
    status, output = project.set_up(extras="more")
    assert status == 1
    assert "pip cannot reach a package index" in output
    assert "HTTPS_PROXY" in output
    assert "fingerprint" not in json.loads(project.stamp.read_text())


def test_an_index_without_the_pinned_version_is_named(project):
    (project.folder / "empty" / "six-1.16.0-py3-none-any.whl").touch()
    status, output = project.set_up(extras="more", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(project.folder / "empty"))
    assert status == 1
    assert "does not offer the versions of constraints.txt" in output
    assert "make run PYTHON=" in output


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 99, 0)])
def test_an_unsupported_python_says_which_one_is_needed(project, version):
    python = project.lying_python(f"import sys; sys.version_info = {version}")
    status, output = project.set_up(python=python, PATH=str(project.folder / "empty"))
    assert status == 1
    assert f"Python {'.'.join(map(str, version))} found" in output
    assert "3.11 to 3.14 are supported" in output
    assert "make run PYTHON=" in output
    assert not project.venv.exists()


def test_an_old_python_hands_over_to_a_newer_one(project):
    python = project.lying_python("import sys; sys.version_info = (3, 8, 18)")
    bin = project.folder / "bin"
    bin.mkdir()
    broken, good = bin / "python3.12", bin / f"python3.{sys.version_info[1]}"
    broken.write_text("#!/bin/sh\nexit 127\n")  # a version manager's shim for a Python that is not installed
    good.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for script in (broken, good):
        script.chmod(0o755)
    project.venv.touch()  # stops it before it installs anything
    status, output = project.set_up(python=python, PATH=str(bin))
    assert f"Python 3.8.18 is too old; going on with {good}." in output
    assert (status, "cannot write to" in output) == (1, True)


def test_native_windows_is_sent_to_wsl(project):
    python = project.lying_python("import sys; sys.platform = 'win32'")
    status, output = project.set_up(python=python)
    assert (status, "wsl --install" in output) == (1, True)


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_missing_venv_module_names_the_package(project, module):
    python = project.lying_python(f"import sys; sys.modules['{module}'] = None")
    status, output = project.set_up(python=python)
    assert (status, "sudo apt install python3-venv" in output) == (1, True)


@pytest.mark.parametrize(("free", "said"), [(1e9, "stopped: 1.0 GB are free"), (4e9, "Note: 4.0 GB are free")])
def test_a_full_disk_is_seen_beforehand(project, free, said):
    lie = f"import shutil, sys; shutil.disk_usage = lambda path: type('Usage', (), {{'free': {free}}})"
    python = project.lying_python(lie + "; sys.modules['ensurepip'] = None")  # goes no further than this
    status, output = project.set_up(python=python)
    assert (status, said in output) == (1, True)


def test_a_read_only_folder_is_named(project):
    project.folder.chmod(0o555)
    wrapper = ()
    if os.geteuid() == 0:  # root may write anywhere, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv (util-linux) when root runs the tests")
        wrapper = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    try:
        status, output = project.set_up(wrapper=wrapper)
    finally:
        project.folder.chmod(0o755)
    assert status == 1
    assert "cannot write to" in output
    assert "Permission denied" in output
    assert "home folder" in output


def requirements(root: Path, *extras: str) -> dict[str, Requirement]:
    """What pyproject.toml requires with these extras, by name."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def test_every_requirement_is_pinned_to_a_version_that_it_allows(root):
    lines = (root / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for name, requirement in requirements(root, "lab", "nxai", "cluster", "dev").items():
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins.get(name)} is outside {requirement}"
    assert not {"workbench", "pip"} & set(pins)
    assert not [version for version in pins.values() if "+" in version]


def test_the_seven_packages_are_installed_by_make_run(root):
    assert set(requirements(root, "lab", "nxai")) >= SEVEN
    recipe = re.search(r"^run:.*\n\t@\$\(SET_UP\) (\S+)", (root / "Makefile").read_text(), re.MULTILINE)
    assert recipe.group(1) == "lab,nxai"


def test_what_the_tests_import_is_declared(root):
    declared = requirements(root, "lab", "nxai", "cluster", "dev")
    homes = packages_distributions()
    files = set((root / "tests").rglob("*.py")) - set((root / "tests/goldens").iterdir())  # made elsewhere, once
    trees = [ast.parse(path.read_text()) for path in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"tests", "workbench"}
    assert "yaml" in names
    assert [name for name in names if not {canonicalize_name(home) for home in homes[name]} & set(declared)] == []


def test_readme_activates_the_environment_before_it_names_the_command(root):
    blocks = re.findall(r"```bash\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    first = next(place for place, block in enumerate(blocks) if re.search("^workbench ", block, re.MULTILINE))
    assert blocks[:2][-1] == "source .venv/bin/activate\n"
    assert first > 1


def test_environment_yml_follows_pyproject(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((root / "environment.yml").read_text())
    assert conda["name"] == project["name"]
    assert conda["channels"] == ["conda-forge", "nodefaults"]
    *packages, pip = conda["dependencies"]
    assert packages == ["python" + project["requires-python"], "pip"]  # Python's packages are named in one place
    assert pip == {"pip": ["--constraint constraints.txt", "--editable .[lab,nxai]"]}
    assert {"lab", "nxai"} <= set(project["optional-dependencies"])
