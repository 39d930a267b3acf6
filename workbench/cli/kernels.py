"""`workbench backends` and `workbench bench`: the forms of each recurrence, and measurements."""

import argparse
import sys


def add(commands: argparse._SubParsersAction) -> None:
    """Add these commands."""
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
    search = subjects.add_parser("search", help="trials per minute, and what is lost when workers are killed")
    search.add_argument("--trials", type=int, default=100, help="of each measurement (100)")
    search.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="how many at once (1 2 4)")
    search.add_argument("--kills", type=int, default=20, help="workers to kill in the middle of a trial (20)")
    search.add_argument("--storage", metavar="URL", help="also on PostgreSQL; or WORKBENCH_STORAGE")
    search.add_argument("--save", metavar="FILE", help="write the numbers as JSON, with where they come from")
    search.set_defaults(call=_bench_search)
    batch = subjects.add_parser("batch", help="what a run of a batch costs beyond its own work, beside papermill alone")
    batch.add_argument("--runs", type=int, default=8, help="of each kind (8)")
    batch.add_argument("--jobs", type=int, default=1, help="at once (1)")
    batch.add_argument("--save", metavar="FILE", help="write the numbers as JSON, with where they come from")
    batch.set_defaults(call=_bench_batch)


def _backends(arguments: argparse.Namespace) -> int:
    from workbench.kernels.catalogue import describe

    rows = describe(arguments.recurrence)
    lines = [list(rows[0])] + [list(row.values()) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print('\nbackend="auto" takes the first form of a recurrence that can run; "by name" forms are never taken so.')
    return 0


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
    return 0


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
    return 0


def _bench_search(arguments: argparse.Namespace) -> int:
    import os

    from workbench.bench import results
    from workbench.search import speed

    rows = []
    url = arguments.storage or os.environ.get("WORKBENCH_STORAGE")
    for row in speed.measure(arguments.trials, arguments.workers, arguments.kills, url):
        rows.append(row)
        _say(f"{row.storage}, {row.workers} workers: {row.trials_per_minute:.0f} trials a minute")
    _say("")
    lines = [["storage", "workers", "trials/min", "killed", "lost"]]
    lines += [
        [row.storage, str(row.workers), f"{row.trials_per_minute:.0f}", str(row.kills), str(row.lost)] for row in rows
    ]
    print(results.columns(lines))
    print("A trial of one seed that computes nothing, its run folder included; with kills, trials of half a second.")
    if arguments.save:
        results.write(arguments.save, speed.__name__, "trials/min", rows, packages=("workbench", "torch", "optuna"))
    return 0


def _bench_batch(arguments: argparse.Namespace) -> int:
    from workbench.batch import overhead
    from workbench.bench import results

    rows = []
    for row in overhead.measure(arguments.runs, arguments.jobs):
        rows.append(row)
        _say(f"{row.kind}: {row.overhead_seconds:.2f} s")
    _say("")
    lines = [["kind", "runs", "at once", "wall s", "own s", "overhead s a run"]]
    for row in rows:
        numbers = (row.wall_seconds, row.own_seconds, row.overhead_seconds)
        lines.append([row.kind, str(row.runs), str(row.jobs), *(f"{number:.2f}" for number in numbers)])
    print(results.columns(lines))
    print("Overhead: what the slots took less what cells or experiments took, Snakemake's own start included.")
    if arguments.save:
        packages = ("workbench", "torch", "papermill", "snakemake")
        results.write(arguments.save, overhead.__name__, "s", rows, packages=packages)
    return 0


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
