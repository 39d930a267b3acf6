"""Runs the cells of one notebook in a kernel, and knows how they ended."""

import time
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager

from workbench.batch.kernel import preamble
from workbench.batch.memory import oom_kills
from workbench.batch.session import Session
from workbench.batch.source import is_counted, title
from workbench.runs.files import write_bytes
from workbench.runs.outcome import Outcome, from_cell_error, from_dead_kernel, from_stop

_LOG_LINES = 12


class Notebook(NotebookExecutionManager):
    """The notebook being executed, saved whole: a kill while it is written leaves the version before."""

    def save(self, **_: object) -> None:
        """Write the notebook as it stands."""
        if self.output_path:
            write_bytes(Path(self.output_path), nbformat.writes(self.nb, version=4).encode())
        self.last_save_time = self.now()


class Client(PapermillNotebookClient):
    """Executes cells one by one, telling the session; an ending of any kind becomes its `outcome`."""

    def __init__(self, nb_man: object, session: Session, log_file: object, **options: object):
        super().__init__(nb_man, **options)
        self.session, self.log_file = session, log_file

    def execute(self, **options: object) -> object:
        """Start the kernel, run the cells, shut the kernel down."""
        session = self.session
        session.cells = sum(map(is_counted, self.nb.cells))
        self.oom_kills = oom_kills()
        self.reset_execution_trackers()
        try:
            with self.setup_kernel(cleanup_kc=True, stdout=self.log_file, stderr=self.log_file, **options):
                self._execute_cells()
        except (RuntimeError, TimeoutError) as error:  # a kernel that does not start, or falls silent
            session.outcome = session.outcome or self._died(error)
        return self.nb

    def start_new_kernel_client(self, **options: object) -> object:
        """Connect to the kernel that was started, ready or not."""
        with self.session.watch(self.km.provisioner.pid):
            return super().start_new_kernel_client(**options)

    def _execute_cells(self) -> None:
        """Run the preamble, then the cells until one ends the run."""
        session = self.session
        with session.watch(self.km.provisioner.pid):
            try:
                info = self.wait_for_reply(self.kc.kernel_info())
                self.nb.metadata["language_info"] = info["content"]["language_info"]
                self._execute_preamble()
                session.ready = True
                if all(map(self._may_follow, range(len(self.nb.cells)))):
                    session.outcome = Outcome("ok")
            except DeadKernelError as error:
                session.outcome = self._died(error)

    def _execute_preamble(self) -> None:
        code = preamble(self.session.run_path, self.session.memory_limit)
        reply = self.wait_for_reply(self.kc.execute(code, silent=True, store_history=False))
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"The kernel cannot attach the run: {reply['content'].get('evalue')}")

    def _may_follow(self, index: int) -> bool:
        """Run one cell; whether the next one may follow."""
        session, cell = self.session, self.nb.cells[index]
        if session.stopped:
            session.outcome = self._stopped()
            return False
        if cell.cell_type != "code" or not cell.source.strip():
            return True
        counted = is_counted(cell)
        if counted:
            session.cell += 1
            session.on_event("cell_start", cell=session.cell, cells=session.cells, title=title(self.nb, index))
        began = time.monotonic()
        good = self._execute(cell, index, counted)
        if counted:
            seconds = round(time.monotonic() - began, 3)
            session.on_event("cell_end", cell=session.cell, cells=session.cells, seconds=seconds, ok=good)
        return good

    def _execute(self, cell: object, index: int, counted: bool) -> bool:
        session = self.session
        self.nb_man.cell_start(cell, index)
        try:
            with session.cell_limit():
                self.execute_cell(cell, index, store_history=counted)
        except CellExecutionError as error:
            self.nb_man.cell_exception(cell, cell_index=index, exception=error)
            session.outcome = self._failed(error, cell)
        except DeadKernelError as error:
            self.nb_man.cell_exception(cell, cell_index=index)
            session.outcome = self._died(error)
        else:
            if session.stopped:  # the cell kept what it had, and ended by itself
                session.outcome = self._stopped()
        finally:
            if not counted:
                cell.execution_count = None
            self.nb_man.cell_complete(cell, cell_index=index)
        return session.outcome is None

    def _failed(self, error: CellExecutionError, cell: object) -> Outcome:
        traceback = next((out.traceback for out in cell.outputs if out.output_type == "error"), [])
        if self.session.stopped:
            return self._stopped(traceback)
        left = self.session.cells - self.session.cell
        return from_cell_error(error.ename, error.evalue, traceback or error.traceback.splitlines(), left)

    def _stopped(self, traceback: list[str] = ()) -> Outcome:
        session = self.session
        value = f"stopped in cell {session.cell}"
        if session.stopped == "timeout":
            value = f"cell {session.cell} ran longer than {session.cell_timeout:g} s"
        run = session.run_path.name if session.run_path else "RUN"
        return from_stop(session.stopped, value, traceback, run)

    def _died(self, error: Exception) -> Outcome:
        if self.session.stopped:
            return self._stopped()
        log = Path(self.log_file.name).read_text(errors="replace").splitlines()[-_LOG_LINES:]
        process = self.km.provisioner.process if self.km and self.km.provisioner else None
        if process is None or process.poll() is None:
            return from_cell_error(type(error).__name__, str(error), log, self.session.cells - self.session.cell)
        after = oom_kills()
        rose = self.oom_kills is not None and after is not None and after > self.oom_kills
        return from_dead_kernel(process.returncode, rose, "\n".join(log))
