"""A run's folder: everything a run leaves behind, in files that need no package of ours to be read."""

import html
import re
import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from workbench.runs.files import append_line, now, plain, read_json, read_lines, write_json
from workbench.runs.provenance import environment, this_process
from workbench.runs.status import Status, read

_writing = threading.RLock()


class Run:
    """One run in its folder `runs/<date>-<name>-<id>/`.

    `run.json` says what was asked and where it ran, `status.json` how it stands, `metrics.jsonl` and
    `events.jsonl` what happened, `outputs.json` what came out; `figures/`, `traces/`, `checkpoints/` hold
    the rest. Make one with `Run.create`, read one with `Run.open`.
    """

    def __init__(self, path: Path):
        self.path = Path(path).resolve()
        self.listeners: list[Callable[[dict], None]] = []  # hear each record of `log`; what they raise ends the run

    @classmethod
    def create(
        cls,
        name: str,
        *,
        root: str | Path = "runs",
        params: object = None,
        seed: int | None = None,
        notebook: dict | None = None,
        folder: str | Path | None = None,
    ) -> "Run":
        """A new, empty run folder under `root`, or `folder` itself; `params` is a Params object or a dict.

        Raises:
            FileExistsError: `folder` is there already.
        """
        slug = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "run"
        params = plain(params) if params is not None else {}
        identity, path = secrets.token_hex(3), None if folder is None else Path(folder)
        if path is not None:
            path.mkdir(parents=True)
        while path is None:
            path = Path(root) / f"{datetime.now():%Y-%m-%d}-{slug}-{identity}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                identity, path = secrets.token_hex(3), None
        record = {
            "format": 1,
            "name": slug,
            "id": identity,
            "created": now(),
            "notebook": notebook,
            "params": params,
            "seed": params.get("seed") if seed is None else seed,
            "data": {},
            **environment(),
            **this_process(),
        }
        write_json(path / "run.json", record)
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run in the folder `path`; a ValueError says why when it is not one."""
        path = Path(path)
        if not (path / "run.json").is_file():
            raise ValueError(f"{path} is not a run folder: it has no run.json.")
        run = cls(path)
        run.record  # noqa: B018 - a damaged file shows at the door
        return run

    @property
    def record(self) -> dict:
        """What `run.json` holds."""
        return read_json(self.path / "run.json")

    @property
    def name(self) -> str:
        """The name of the folder, unique under its root."""
        return self.path.name

    @property
    def params(self) -> dict:
        """The parameters of the run, by name."""
        return self.record["params"]

    @property
    def figures(self) -> Path:
        """The folder of figure bundles."""
        return self._folder("figures")

    @property
    def traces(self) -> Path:
        """The folder of recorded gates and states."""
        return self._folder("traces")

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self._folder("checkpoints")

    def amend(self, **fields: object) -> None:
        """Set fields of `run.json`."""
        with _writing:
            write_json(self.path / "run.json", {**self.record, **fields})

    def uses_data(self, name: str, sha256: str) -> None:
        """Record that the run read the data set `name` with this SHA-256."""
        with _writing:
            self.amend(data={**self.record["data"], name: sha256})

    def log(self, **fields: object) -> None:
        """Append one record of numbers to `metrics.jsonl`, with the time."""
        record = {"time": now(), **fields}
        append_line(self.path / "metrics.jsonl", record)
        for listener in self.listeners:
            listener(record)

    def event(self, kind: str, **fields: object) -> None:
        """Append one event to `events.jsonl`, with the time."""
        append_line(self.path / "events.jsonl", {"time": now(), "kind": kind, **fields})

    def out(self, name: str, value: object) -> None:
        """Keep `value` under `name` in `outputs.json`; NaN and infinities become null (JSON has neither)."""
        with _writing:
            write_json(self.path / "outputs.json", {**self.outputs(), name: plain(value, name)})

    def figure(self, fig: object, name: str, caption: str = "") -> Path:
        """Save a plotly figure as the bundle `figures/<name>/`: figure.json, data.parquet, provenance.json."""
        from workbench.runs.figures import save_bundle

        return save_bundle(self, fig, name, caption)

    def metrics(self) -> list[dict]:
        """The records of `metrics.jsonl`, oldest first."""
        return read_lines(self.path / "metrics.jsonl")

    def events(self) -> list[dict]:
        """The records of `events.jsonl`, oldest first."""
        return read_lines(self.path / "events.jsonl")

    def outputs(self) -> dict:
        """What the run put out, by name."""
        path = self.path / "outputs.json"
        return read_json(path) if path.exists() else {}

    def status(self) -> Status:
        """How the run stands; a run whose process is gone reads as killed."""
        return read(self.path)

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def __repr__(self) -> str:
        return f"Run {self.name}: {self.status().state}, in {self.path}"

    def _repr_html_(self) -> str:
        status = self.status()
        rows = {"state": status.state, "folder": self.path, **self.params}
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(str(key))}</th><td>{html.escape(str(value))}</td></tr>"
            for key, value in rows.items()
        )
        return f"<table><caption>Run {html.escape(self.name)}</caption>{cells}</table>"
