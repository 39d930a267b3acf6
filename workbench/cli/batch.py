"""`workbench batch`: a plan of many runs."""

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.batch.batches import Batch
    from workbench.batch.standing import Row

_LINE_EVERY_SECONDS = 30.0


def add(commands: argparse._SubParsersAction) -> None:
    """Add this command."""
    batch = commands.add_parser("batch", help="run a plan of many runs, here or on a cluster; the same again goes on")
    batch.add_argument("plan", help="a YAML file, or the folder of a batch")
    batch.add_argument("--root", default="batches", help="folder of the batch folders (batches)")
    batch.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="cores, or jobs in a queue")
    batch.add_argument("--executor", default="local", help="of Snakemake: local, slurm, kubernetes (local)")
    batch.add_argument("--dry-run", action="store_true", help="say what would run, and for how long; run nothing")
    batch.add_argument("--explain", action="store_true", help="say why each run would run; run nothing")
    batch.set_defaults(call=_batch)


def _batch(arguments: argparse.Namespace) -> int:
    from workbench.batch.batches import Batch

    batch = Batch(arguments.plan, arguments.root)
    if arguments.dry_run or arguments.explain:
        print(_preview(batch, arguments.jobs, arguments.explain))
        return 0
    waiting = len(batch.reasons())
    print(f"{batch.plan.name}: {len(batch.jobs)} runs, {waiting} to do{_time(batch, arguments.jobs)} → {batch.folder}")
    try:
        ended = batch.run(
            arguments.jobs, executor=arguments.executor, flags=arguments.after, watch=Progress(arguments.jobs)
        )
    except KeyboardInterrupt:
        print(f"\nStopped. `workbench batch {batch.folder}` goes on from the checkpoints.")
        return 130
    print(f"Page: {batch.folder / 'index.html'}")
    return 0 if all(row.state == "ok" for row in ended) else 1


def _preview(batch: "Batch", slots: int, explain: bool) -> str:
    reasons = batch.reasons()
    lines = []
    for job in batch.jobs:
        state = "would run" if job.name in reasons else "done"
        why = f"  {reasons[job.name]}" if explain and job.name in reasons else ""
        lines.append(f"{job.name:32}  {state:9}  {job.label}{why}")
    return "\n".join([*lines, f"{len(reasons)} of {len(batch.jobs)} would run{_time(batch, slots)}"])


def _time(batch: "Batch", slots: int) -> str:
    from workbench.batch.progress_view import duration

    left = batch.seconds_left(slots)
    if left == 0:
        return ""
    return ", how long is known after the first of each group" if left is None else f", about {duration(left)}"


class Progress:
    """Shows a batch: in a terminal one line is rewritten; every change of a run's state is a line of its own."""

    def __init__(self, slots: int) -> None:
        self.slots, self.states, self.last = slots, {}, time.monotonic()
        self.rewrites = sys.stdout.isatty()

    def __call__(self, batch: "Batch", over: bool) -> None:
        """Look at the batch, and show what has changed."""
        standing = batch.rows()
        for row in standing:
            before = self.states.setdefault(row.job.name, row.state)
            self.states[row.job.name] = row.state
            if before != row.state and row.state not in ("queued", "running"):
                self._line(_ended(row))
        head = self._head(batch, standing)
        if over:
            self._line(head)
        elif self.rewrites:
            print(f"\r\x1b[2K{head[:100]}", end="", flush=True)
        elif time.monotonic() - self.last > _LINE_EVERY_SECONDS:
            self.last = time.monotonic()
            self._line(head)

    def _head(self, batch: "Batch", standing: list["Row"]) -> str:
        from workbench.batch.page import summary

        busy = any(row.state in ("queued", "running") for row in standing)
        return summary(standing) + (_time(batch, self.slots) if busy else "")

    def _line(self, text: str) -> None:
        print(f"\r\x1b[2K{text}" if self.rewrites else text, flush=True)


def _ended(row: "Row") -> str:
    from workbench.batch.progress_view import duration

    took = "" if row.status.seconds is None else f"  {duration(row.status.seconds)}"
    why = f"  {row.status.error.name}: {row.status.error.value}".splitlines()[0] if row.status.error else ""
    return f"{row.state:11} {row.job.label}{took}{why}"
