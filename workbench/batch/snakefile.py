"""Jobs as a Snakefile: a rule for each, whose output is the `done.json` of its run folder."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from workbench.batch import executors, machine
from workbench.batch.jobs import DONE, Job
from workbench.batch.memory import size

SNAKEFILE = "Snakefile"


def snakefile(jobs: Iterable[Job], folder: Path) -> str:
    """The text of the Snakefile; what a run is made of is in its folder's name, so no file's time matters."""
    jobs = list(jobs)
    targets = ", ".join(repr(f"runs/{job.name}/{DONE}") for job in jobs)
    return "\n".join([f"rule all:\n    input: {targets}\n", *(_rule(job, folder) for job in jobs)])


def _rule(job: Job, folder: Path) -> str:
    needs = "".join(f'ancient("runs/{name}/{DONE}"), ' for name in job.needs)
    lines = [f"rule {job.name.replace('-', '_')}:"]
    lines += [f"    input: {needs.rstrip(', ')}"] if needs else []
    lines += [f'    output: "runs/{job.name}/{DONE}"', f"    threads: {job.resources['threads']}"]
    if resources := ", ".join(f"{name}={value}" for name, value in requests(job).items()):
        lines += [f"    resources: {resources}"]
    return "\n".join([*lines, f"    shell: {shell(job, folder)!r}", ""])


def requests(job: Job) -> dict[str, int]:
    """What a job asks of the machine, by Snakemake's names: mem_mb, runtime (minutes), gpu."""
    memory, minutes, gpus = (job.resources[name] for name in ("memory", "minutes", "gpus"))
    asked = {"mem_mb": 0 if memory is None else -(-size(memory) // 10**6)}
    asked |= {"runtime": 0 if minutes is None else max(round(minutes), 1), "gpu": gpus}
    return {name: value for name, value in asked.items() if value}


def shell(job: Job, folder: Path) -> str:
    """The command line of a job, in Snakemake's format: braces are doubled."""
    command = [sys.executable, "-m", "workbench", "run", "--job", str(folder.resolve()), job.name]
    threads = f"OMP_NUM_THREADS={job.resources['threads']}"
    line = f"cd {shlex.quote(str(Path.cwd()))} && {threads} {shlex.join(command)}"
    return line.replace("{", "{{").replace("}", "}}")


def command(folder: Path, slots: int, executor: str, flags: Iterable[str]) -> list[str]:
    """Snakemake's command line; `flags` stand last and win."""
    fixed = ["--snakefile", str(folder / SNAKEFILE), "--directory", str(folder), "--keep-going", "--nolock"]
    fixed += ["--ignore-incomplete"]  # done.json is written in one piece
    fixed += ["--rerun-triggers", "mtime", "--nocolor", "--quiet", "rules", "host"]
    chosen = executors.flags(executor, slots, folder)
    if executor == "local":
        chosen += ["--resources", *(f"{name}={amount}" for name, amount in machine.resources().items())]
    return [sys.executable, "-m", "snakemake", *fixed, *chosen, *executors.complete(flags)]
