"""The doctor names what is missing and what to do, and is content with a whole installation."""

import importlib.metadata

import pytest

from workbench import doctor


def test_a_whole_installation_is_ready(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctor.main() == 0
    output = capsys.readouterr().out
    assert "Ready: `workbench demo` can run." in output
    for name in ("torch", "xlstm", *doctor.PACKAGES):
        assert f"{name} " in output


def test_a_missing_package_is_fatal_and_says_how_to_get_it(capsys, monkeypatch):
    def version(name):
        if name == "papermill":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor.main() == 1
    output = capsys.readouterr().out
    assert "MISSING papermill" in output
    assert doctor.INSTALL in output
    assert output.strip().endswith("Not ready: papermill. Follow the arrows, then run `workbench doctor` again.")


@pytest.mark.parametrize(("missing", "fatal"), [("jupyterlab", False), ("optuna", False), ("mistune", True)])
def test_only_what_the_demo_imports_is_fatal(capsys, tmp_path, monkeypatch, missing, fatal):
    monkeypatch.chdir(tmp_path)
    installed = importlib.metadata.version

    def version(name):
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor.main() == int(fatal)
    output = capsys.readouterr().out
    assert f"{'MISSING' if fatal else 'note':8}{missing}" in output
    assert "pygments" not in output  # what is there and not one of the seven is not listed


def test_a_missing_xlstm_is_a_note(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = doctor.look_at_xlstm()
    assert (found.fatal, "pip install xlstm" in found.advice) == (False, True)


def test_runs_that_cannot_be_written_are_fatal(tmp_path):
    (tmp_path / "runs").touch()  # a file where the folder should be
    found = doctor.look_at_runs(tmp_path / "runs")
    assert (found.fatal, "cannot be written" in found.found) == (True, True)


def test_changed_data_is_fatal(monkeypatch, tmp_path):
    from workbench.data import registry

    (name, dataset), *_ = registry.DATASETS.items()
    copy = tmp_path / dataset.file
    copy.parent.mkdir()
    copy.write_bytes(b"cut off")
    monkeypatch.setattr(registry, "fetch", lambda name: registry.verified(copy, dataset))
    found = next(iter(doctor.look_at_data()))
    assert (found.subject, found.fatal) == (f"Data: {name}", True)
    assert "Get it again from" in found.advice


@pytest.mark.parametrize("look", [doctor.look_at_browser, doctor.look_at_compiler])
def test_an_empty_path_is_a_note(look, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    found = look()
    assert not found.fatal
    assert found.advice or found.found.startswith("/")  # a browser may lie outside PATH
