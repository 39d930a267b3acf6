"""What this machine has for runs: memory, and GPUs, each of which one run at a time holds."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from workbench.runs.lock import held

_EVERY_SECONDS = 0.5


def resources() -> dict[str, int]:
    """How much there is, by Snakemake's names: mem_mb, gpu."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"mem_mb": memory // 10**6, "gpu": len(_gpus())}


@contextmanager
def lent_gpus(count: int, visible: str | None = None) -> Iterator[str]:
    """Hold so many GPUs while the block runs, waiting for them: what CUDA_VISIBLE_DEVICES is to be.

    The system takes them back when this process ends, however it ends.

    Args:
        count: GPUs.
        visible: CUDA_VISIBLE_DEVICES as it is; None for all that there are.

    Raises:
        ValueError: there are not so many.
    """
    pool = _gpus() if visible is None else [name for name in visible.split(",") if name]
    if count > len(pool):
        raise ValueError(f"gpus={count}, and {len(pool)} can be seen here; ask for fewer.")
    folder = Path(tempfile.gettempdir()) / f"wb-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        with ExitStack() as stack:
            free = (name for name in pool if stack.enter_context(held(folder / f"{name}.lock")) is not None)
            taken = [name for name, _ in zip(free, range(count), strict=False)]
            if len(taken) == count:
                yield ",".join(taken)
                return
        time.sleep(_EVERY_SECONDS)


def _gpus() -> list[str]:
    """The numbers of the GPUs, as the driver counts them."""
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(number) for number, line in enumerate(done.stdout.splitlines()) if line.startswith("GPU ")]
