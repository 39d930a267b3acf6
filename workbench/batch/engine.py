"""The papermill engine `workbench`: honest about how a notebook ended.

papermill calls what never ran "completed" when a kernel dies; here such cells stay "pending".
Nothing of papermill is imported at the top: papermill itself loads this module while its own engines are
half defined, so the engine answers papermill's three questions without being a subclass.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.batch.client import Notebook
    from workbench.batch.session import Session


class WorkbenchEngine:
    """Executes a notebook with this interpreter over IPC, stops as a person would, and keeps outputs small."""

    @staticmethod
    def nb_kernel_name(nb: object, name: str | None = None) -> str:
        """The kernel is always this interpreter, whatever the notebook says."""
        return "python3"

    @staticmethod
    def nb_language(nb: object, language: str | None = None) -> str:
        """The language is always Python."""
        return "python"

    @classmethod
    def execute_notebook(
        cls,
        nb: object,
        kernel_name: str,
        output_path: str | None = None,
        *,
        session: "Session | None" = None,
        start_timeout: int = 60,
        execution_timeout: float | None = None,
        autosave_cell_every: int = 30,
        **_: object,
    ) -> object:
        """Execute `nb`, saving to `output_path` as it goes; `session` is told what happens."""
        from nbclient.exceptions import DeadKernelError

        from workbench.batch.client import Notebook
        from workbench.batch.session import Session

        alone = session is None  # called by papermill itself: it must see the error
        session = session or Session(cell_timeout=execution_timeout)
        path = session.run_path / "notebook.ipynb" if session.run_path else output_path
        manager = Notebook(nb, path, progress_bar=False, autosave_cell_every=autosave_cell_every)
        manager.notebook_start()
        try:
            cls._execute(manager, session, start_timeout)
        finally:
            _finish(manager, session)
        if alone and session.outcome.state != "ok" and not manager.nb.metadata.papermill["exception"]:
            raise DeadKernelError(session.outcome.error.value)
        return manager.nb

    @staticmethod
    def _execute(manager: "Notebook", session: "Session", start_timeout: int) -> None:
        from workbench.batch.client import Client
        from workbench.batch.kernel import kernel_manager

        with kernel_manager() as km, open(km.folder / "kernel.log", "wb") as log_file:
            client = Client(
                manager,
                session,
                log_file,
                km=km,
                kernel_name="python3",
                startup_timeout=start_timeout,
                timeout=None,
                iopub_timeout=60,
                store_widget_state=False,
                coalesce_streams=True,
            )
            client.execute(env=os.environ | ({"WORKBENCH_OFFLINE": "1"} if session.offline else {}))


def _finish(manager: "Notebook", session: "Session") -> None:
    papermill = manager.nb.metadata.papermill
    manager.end_time = manager.now()
    papermill["end_time"] = manager.end_time.isoformat()
    papermill["duration"] = (manager.end_time - manager.start_time).total_seconds()
    if session.outcome is not None and session.outcome.state == "ok":
        papermill["exception"] = None
    manager.save()
