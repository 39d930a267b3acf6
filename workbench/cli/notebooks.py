"""`workbench demo`, `run`, `lab`, `doctor`: notebooks and experiments, one at a time."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import workbench

if TYPE_CHECKING:
    from workbench.runs.folder import Run


def add(commands: argparse._SubParsersAction) -> None:
    """Add these commands."""
    demo = commands.add_parser("demo", add_help=False, help="train an LSTM and an xLSTM, and look at their gates")
    demo.set_defaults(call=_demo)
    _add_run(commands)
    commands.add_parser("doctor", help="check this installation").set_defaults(call=_doctor)
    lab = commands.add_parser("lab", help="open JupyterLab on the first notebook; flags go to Jupyter: --no-browser")
    lab.set_defaults(call=_lab)


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser("run", help="run a notebook headless, or an experiment, with parameters")
    run.add_argument("notebook", nargs="?", help="a notebook, or an experiment's name; with --from, the old run's")
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    run.add_argument("--profile", choices=("smoke", "default", "paper"), help="size of an experiment (default)")
    run.add_argument("--from", dest="resume_from", metavar="RUN", help="start from a run: its parameters, checkpoints")
    run.add_argument("--parallel", choices=("ddp", "shard"), help="an experiment on all processes of torchrun")
    run.add_argument("--job", nargs=2, metavar=("BATCH", "NAME"), help="run one job of a batch, in its folder there")
    run.add_argument("--cell-timeout", type=float, metavar="SECONDS", help="the longest that one cell may take")
    run.add_argument("--memory-limit", metavar="SIZE", help="data that the kernel may hold, as 2GB (Linux)")
    run.add_argument("--name", help="name of the run folder")
    run.add_argument("--root", default="runs", help="folder of the run folders (runs)")
    run.set_defaults(call=_run)


def _demo(arguments: argparse.Namespace, flags: list[str]) -> int:
    given = _chosen(flags) if flags else {}  # without flags there is nothing to check, and torch stays unloaded here
    from workbench.batch.execute import execute

    return _end(execute(_first_notebook(), given, name="demo", offline=arguments.offline))


def _chosen(flags: list[str]) -> dict[str, object]:
    """The parameters of the demo that its flags set to something else than their default."""
    import tyro

    from workbench.experiments.forecast import Params

    base = Params.smoke() if "--smoke" in flags else Params()
    flags = [flag for flag in flags if flag != "--smoke"]
    about = "Trains an LSTM and an xLSTM on real data and looks at their gates. --smoke: tiny, in seconds."
    chosen = tyro.cli(Params, prog="workbench demo", description=about, args=flags, default=base)
    default = Params()
    return {name: value for name, value in chosen if value != getattr(default, name)}


def _run(arguments: argparse.Namespace) -> int:
    if arguments.job:
        from workbench.batch.attempt import run_job

        slurm, gpus = (os.environ.get(name) for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"))
        return _end(run_job(*arguments.job, slurm_job=slurm, visible_gpus=gpus))
    if arguments.notebook and not arguments.notebook.endswith(".ipynb"):
        return _run_experiment(arguments)
    from workbench.batch.execute import execute, read_run_source
    from workbench.batch.memory import size
    from workbench.batch.source import typed

    source = read_run_source(arguments.notebook, arguments.resume_from, arguments.root)
    values = {name: typed(value, source.defaults.get(name)) for name, value in arguments.p}
    run = execute(
        source.path,
        values,
        root=arguments.root,
        name=arguments.name,
        resume_from=arguments.resume_from,
        cell_timeout=arguments.cell_timeout,
        memory_limit=None if arguments.memory_limit is None else size(arguments.memory_limit),
        offline=arguments.offline,
    )
    return _end(run)


def _run_experiment(arguments: argparse.Namespace) -> int:
    if arguments.parallel:  # torch reads it when it is imported: each process would warn that all is well
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from workbench.batch.source import typed
    from workbench.experiments.catalogue import find
    from workbench.experiments.running import profile, run_experiment
    from workbench.runs.folder import Run
    from workbench.runs.params import build, refuse_unknown

    given = ("resume_from", "cell_timeout", "memory_limit")
    if extra := [f"--{name}" for name in given if getattr(arguments, name) is not None]:
        raise ValueError(f"{', '.join(extra).replace('_', '-')}: only a notebook can be run so, not an experiment.")
    experiment = find(arguments.notebook)
    base = profile(experiment, arguments.profile or "default").model_dump()
    refuse_unknown([name for name, _ in arguments.p], base)
    params = build(experiment.Params, base | {name: typed(value, base[name]) for name, value in arguments.p})
    name = arguments.name or arguments.notebook
    if arguments.parallel:
        from workbench.experiments.running import run_together

        run = run_together(experiment, params, arguments.parallel, name=name, root=arguments.root)
        return 0 if run is None else _end(run)
    run = Run.create(name, root=arguments.root, params=params)
    print(f"{arguments.notebook} → {run.path}", flush=True)
    run_experiment(experiment, params, run)
    return _end(run)


def _doctor(arguments: argparse.Namespace) -> int:
    from workbench import doctor

    return doctor.main()


def _lab(arguments: argparse.Namespace, flags: list[str]) -> int:
    from workbench.batch.kernel import install_kernelspec

    install_kernelspec()
    sys.stdout.flush()
    environment = os.environ | ({"WORKBENCH_OFFLINE": "1"} if arguments.offline else {})
    os.execve(sys.executable, [sys.executable, "-m", "jupyterlab", str(_first_notebook()), *flags], environment)


def _first_notebook() -> Path:
    path = Path(workbench.__file__).resolve().parents[1] / "notebooks" / "00_start_here.ipynb"
    if not path.is_file():
        raise ValueError(f"{path} is missing: the notebooks come with a clone of the project, installed with `pip -e`.")
    return path


def _end(run: "Run") -> int:
    """Show what a run found, if it has scores, and where its report is; return the exit code of its status."""
    from workbench.runs.scores import summary

    state = run.status().state
    if state == "ok" and "scores" in run.outputs():
        print(summary(run.outputs()))
    if (report := run.path / "report.html").is_file():
        print(f"Report: {report}")
    return {"ok": 0, "interrupted": 130}.get(state, 1)
