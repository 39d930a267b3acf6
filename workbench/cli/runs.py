"""`workbench runs`: list, show and remove run folders."""

import argparse
import sys
from pathlib import Path
from typing import get_args


def add(commands: argparse._SubParsersAction) -> None:
    """Add this command."""
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
    return 0


def _runs_show(arguments: argparse.Namespace) -> int:
    import json

    from workbench.runs import store

    run = store.find(arguments.run, arguments.root)
    print(run)
    for label, values in (("params", run.params), ("status", run.status().model_dump(exclude_none=True))):
        print(f"{label}: {json.dumps(values, indent=2, ensure_ascii=False)}")
    print(f"outputs: {json.dumps(run.outputs(), indent=2, ensure_ascii=False)}")
    print("files: " + "  ".join(sorted(path.name for path in run.path.iterdir())))
    return 0


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
        return 0
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ValueError(f"would remove {len(chosen)} runs; give --yes to do it.")
        if input(f"Remove these {len(chosen)} runs? [y/N] ").strip().lower() not in ("y", "yes"):
            return 0
    for run in chosen:
        store.remove(run)
    print(f"Removed {len(chosen)}.")
    return 0
