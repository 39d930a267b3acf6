"""The command line: `workbench demo`, `run`, `runs`, `backends`, `bench`, `doctor`, `lab`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import workbench

if TYPE_CHECKING:
    from workbench.runs.folder import Run

_OPEN = ("demo", "lab")  # the demo's flags come from its Params, those of the lab go to Jupyter
_FINISHED_WELL, _FAILED, _USAGE, _INTERRUPTED = 0, 1, 2, 130
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 ok, 1 the run failed, 2 it could not start, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    words = sorted(words, key=lambda word: word != "--offline")  # it may stand anywhere, and is parsed at the front
    arguments, rest = _parser().parse_known_args(words)
    if rest and arguments.command not in _OPEN:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    command: Callable = arguments.call
    try:
        return command(arguments, rest) if arguments.command in _OPEN else command(arguments)
    except ModuleNotFoundError as error:
        from workbench.doctor import INSTALL

        print(f"workbench {arguments.command}: {error}; {INSTALL}", file=sys.stderr)
        return _USAGE
    except (ValueError, OSError) as error:
        print(f"workbench {arguments.command}: {error}", file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="workbench", description=workbench.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"workbench {workbench.__version__}")
    parser.add_argument("--offline", action="store_true", help="download nothing; it may stand anywhere")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", add_help=False, help="train an LSTM and an xLSTM, and look at their gates")
    demo.set_defaults(call=_demo)
    _add_run(commands)
    _add_runs(commands)
    _add_kernels(commands)
    commands.add_parser("doctor", help="check this installation").set_defaults(call=_doctor)
    lab = commands.add_parser("lab", help="open JupyterLab on the first notebook; flags go to Jupyter: --no-browser")
    lab.set_defaults(call=_lab)
    return parser


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser("run", help="run a notebook headless, with parameters")
    run.add_argument("notebook", nargs="?", help="the notebook; with --from, the old run's by default")
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    run.add_argument("--from", dest="resume_from", metavar="RUN", help="start from a run: its parameters, checkpoints")
    run.add_argument("--cell-timeout", type=float, metavar="SECONDS", help="the longest that one cell may take")
    run.add_argument("--memory-limit", metavar="SIZE", help="data that the kernel may hold, as 2GB (Linux)")
    run.add_argument("--name", help="name of the run folder")
    run.add_argument("--root", default="runs", help="folder of the run folders (runs)")
    run.set_defaults(call=_run)


def _add_runs(commands: argparse._SubParsersAction) -> None:
    runs = commands.add_parser("runs", help="list, show and remove runs")
    actions = runs.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all runs, newest first")
    show = actions.add_parser("show", help="one run: status, parameters, outputs")
    show.add_argument("run", help="its folder, or the beginning of its name or id")
    prune = actions.add_parser("prune", help="delete old runs; never one that is running")
    prune.add_argument("--older-than", type=float, metavar="DAYS", help="only runs older than this")
    prune.add_argument("--keep", type=int, metavar="N", help="keep the newest N")
    prune.add_argument("--state", action="append", metavar="STATE", help="only runs in this state, as failed")
    prune.add_argument("--yes", action="store_true", help="delete without asking")
    for action, call in ((listing, _runs_list), (show, _runs_show), (prune, _runs_prune)):
        action.add_argument("--root", default="runs", help="folder of the run folders (runs)")
        action.set_defaults(call=call)


def _add_kernels(commands: argparse._SubParsersAction) -> None:
    backends = commands.add_parser("backends", help="the forms of each recurrence: where they run, what they promise")
    backends.add_argument("recurrence", nargs="*", help="all, if none is given")
    backends.set_defaults(call=_backends)
    bench = commands.add_parser("bench", help="measure, beside other packages where they are installed")
    subjects = bench.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    exact = subjects.add_parser("exact", help="how far each form is from its equations, in a minute or less")
    exact.add_argument("recurrence", nargs="*", help="all, if none is given")
    exact.add_argument("--steps", type=int, default=128, help="length of the sequences (128)")
    exact.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    exact.add_argument("--save", metavar="FILE", help="write the numbers as JSON, with where they come from")
    exact.set_defaults(call=_bench_exact)
    trace = subjects.add_parser("trace", help="what tracing costs: time and memory for each family, in a minute or two")
    trace.add_argument("family", nargs="*", help="all, if none is given")
    trace.add_argument("--steps", type=int, default=1024, help="length of the sequences (1024)")
    trace.add_argument("--stream", type=int, default=0, metavar="STEPS", help="also trace so many steps to disk")
    trace.add_argument("--save", metavar="FILE", help="write the numbers as JSON, with where they come from")
    trace.set_defaults(call=_bench_trace)


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
    from workbench.batch.execute import execute, read_run_source
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


def _runs_list(arguments: argparse.Namespace) -> int:
    from workbench.batch.progress_view import duration
    from workbench.runs import store

    rows = store.entries(arguments.root)
    width = max((len(row.path.name) for row in rows), default=0)
    for row in rows:
        if row.run is None:
            print(f"{row.path.name:{width}}  broken       {row.problem}")
            continue
        took = "" if row.status.seconds is None else duration(row.status.seconds)
        why = f"{row.status.error.name}: {row.status.error.value}" if row.status.error else ""
        print(
            f"{row.path.name:{width}}  {row.status.state:11}  {took:>12}  {why.splitlines()[0] if why else ''}".rstrip()
        )
    if not rows:
        print(f"No runs in {Path(arguments.root).resolve()}.")
    return _FINISHED_WELL


def _runs_show(arguments: argparse.Namespace) -> int:
    import json

    from workbench.runs import store

    run = store.find(arguments.run, arguments.root)
    print(run)
    for label, values in (("params", run.params), ("status", run.status().model_dump(exclude_none=True))):
        print(f"{label}: {json.dumps(values, indent=2, ensure_ascii=False)}")
    print(f"outputs: {json.dumps(run.outputs(), indent=2, ensure_ascii=False)}")
    print("files: " + "  ".join(sorted(path.name for path in run.path.iterdir())))
    return _FINISHED_WELL


def _runs_prune(arguments: argparse.Namespace) -> int:
    from workbench.runs import store
    from workbench.runs.params import refuse_unknown
    from workbench.runs.status import State

    refuse_unknown(arguments.state or (), get_args(State), "--state")
    if arguments.older_than is None and arguments.keep is None and arguments.state is None:
        raise ValueError("say what may go: --older-than DAYS, --keep N or --state STATE.")
    chosen = store.prunable(
        arguments.root, older_than_days=arguments.older_than, keep=arguments.keep, states=arguments.state
    )
    for run in chosen:
        print(run.path)
    if not chosen:
        print("Nothing to remove.")
        return _FINISHED_WELL
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ValueError(f"would remove {len(chosen)} runs; give --yes to do it.")
        if input(f"Remove these {len(chosen)} runs? [y/N] ").strip().lower() not in ("y", "yes"):
            return _FINISHED_WELL
    for run in chosen:
        store.remove(run)
    print(f"Removed {len(chosen)}.")
    return _FINISHED_WELL


def _backends(arguments: argparse.Namespace) -> int:
    from workbench.kernels.catalogue import describe

    rows = describe(arguments.recurrence)
    lines = [list(rows[0])] + [list(row.values()) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print('\nbackend="auto" takes the first form of a recurrence that can run; "by name" forms are never taken so.')
    return _FINISHED_WELL


def _bench_exact(arguments: argparse.Namespace) -> int:
    from workbench.bench import exact

    rows = []
    for row in exact.measure(arguments.steps, arguments.device, arguments.recurrence):
        _say(f"{row.recurrence} {row.form} {row.dtype}")
        rows.append(row)
    _say("")
    print(exact.table(rows))
    print("Relative RMS errors against the reference in float64; -: it does not run.")
    if arguments.save:
        exact.save(arguments.save, rows, arguments.steps, arguments.device)
    return _FINISHED_WELL


def _bench_trace(arguments: argparse.Namespace) -> int:
    from workbench.bench import results, trace

    costs, streams = [], []
    for row in trace.measure(arguments.steps, arguments.family):
        costs.append(row)
        _say(f"{row.family}: {row.traced_ms:.0f} ms")
    for row in trace.measure_stream(arguments.stream, arguments.family) if arguments.stream else ():
        streams.append(row)
        _say(f"{row.family}: {row.steps:,} steps in {row.seconds:.0f} s")
    _say("")
    print(trace.table(costs, streams))
    print("One block, batch 1, width 64, 4 heads, float32, no gradients; memory: how far it rose.")
    if arguments.save:
        packages = ("workbench", "torch")
        results.write(arguments.save, trace.__name__, "ms, MB", [*costs, *streams], packages=packages)
    return _FINISHED_WELL


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


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


def size(text: str) -> int:
    """Bytes that a text like 800MB, 2 GB or 1.5g means (1 GB = 10⁹ bytes)."""
    number = text.strip().lower().removesuffix("b").removesuffix("i").strip()
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        count = int(float(number.removesuffix(unit)) * _UNITS[unit])
    except ValueError:
        raise ValueError(f"--memory-limit {text!r} is no size; write it as 800MB or 2GB.") from None
    if count <= 0:
        raise ValueError(f"--memory-limit {text!r} leaves no memory; write it as 800MB or 2GB.")
    return count


def _end(run: "Run") -> int:
    """Show what a run found, if it has scores, and where its report is; return the exit code of its status."""
    from workbench.runs.scores import summary

    state = run.status().state
    if state == "ok" and "scores" in run.outputs():
        print(summary(run.outputs()))
    if (report := run.path / "report.html").is_file():
        print(f"Report: {report}")
    return {"ok": _FINISHED_WELL, "interrupted": _INTERRUPTED}.get(state, _FAILED)


if __name__ == "__main__":
    sys.exit(main())
