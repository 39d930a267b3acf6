"""An experiment that goes step by step, keeps each in its checkpoint, and says on which GPU it was."""

import os
import time

from workbench.runs.folder import Run
from workbench.runs.params import Params as Base


class Params(Base):
    """How long it takes, and how it ends."""

    value: int = 1
    steps: int = 1
    seconds: float = 0.0
    fails: bool = False

    @classmethod
    def smoke(cls) -> "Params":
        """The same."""
        return cls()

    @classmethod
    def paper(cls) -> "Params":
        """The same."""
        return cls()


def run(params: Params, run: Run) -> None:
    """Go the steps that are left."""
    kept = run.checkpoints / "steps"
    begun = int(kept.read_text()) if kept.exists() else 0
    for step in range(begun, params.steps):
        time.sleep(params.seconds)
        kept.write_text(str(step + 1))
    if params.fails:
        raise RuntimeError("on purpose")
    run.out("begun_at", begun)
    run.out("gpus", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
