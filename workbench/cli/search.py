"""`workbench search`: look for good parameters of an experiment."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.search.searches import Search

_LINE_EVERY_SECONDS = 30.0
_STORAGE = "WORKBENCH_STORAGE"


def add(commands: argparse._SubParsersAction) -> None:
    """Add this command; `worker` and `dashboard` stand in the place of an experiment's name."""
    search = commands.add_parser("search", help="look for good parameters of an experiment; the same again goes on")
    search.add_argument("what", help="an experiment's name; or `worker`, or `dashboard`, and a study's folder")
    search.add_argument("study", nargs="?", help="with worker and dashboard: the folder of the study")
    search.add_argument("--trials", type=int, default=50, metavar="N", help="how many trials in the end (50)")
    search.add_argument("--workers", type=int, default=1, metavar="K", help="processes on this machine (1)")
    search.add_argument("--objective", action="append", metavar="NAME[:maximize]", help="several may be given (valid)")
    methods = "NAME[:KEY=VALUE,…]"
    names = "tpe, gp, cmaes, nsga2, nsga3, qmc, random, grid (auto)"
    search.add_argument("--sampler", default="auto", metavar=methods, help=names)
    search.add_argument(
        "--pruner", default="median", metavar=methods, help="none, median, hyperband, wilcoxon (median)"
    )
    spaces = "NAME[=LOW..HIGH[,log]|A|B]"
    search.add_argument(
        "--space", action="append", default=[], metavar=spaces, help="search these, not all that can be"
    )
    search.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    search.add_argument("--profile", default="default", choices=("smoke", "default", "paper"), help="size (default)")
    search.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each trial (3)")
    search.add_argument("--top", type=int, default=3, metavar="N", help="the best so many run again, fresh seeds (3)")
    search.add_argument("--seed", type=int, default=0, help="of the search (0)")
    search.add_argument("--lease", type=float, default=60.0, metavar="SECONDS", help="silence that loses a trial (60)")
    search.add_argument("--timeout", type=float, default=float("inf"), metavar="MINUTES", help="begin no trial later")
    search.add_argument("--name", help="of the study (the experiment's name)")
    search.add_argument("--root", default="studies", help="folder of the study folders (studies)")
    search.add_argument(
        "--storage", metavar="URL", help=f"a PostgreSQL database; {_STORAGE} keeps its password out of ps"
    )
    search.add_argument("--number", type=int, help=argparse.SUPPRESS)
    search.set_defaults(call=_search)


def _search(arguments: argparse.Namespace) -> int:
    url = arguments.storage or os.environ.get(_STORAGE)
    if arguments.study is None and arguments.what in ("worker", "dashboard"):
        raise ValueError(f"workbench search {arguments.what} needs the folder of a study.")
    try:
        if arguments.what == "worker":
            return _worker(arguments, url)
        if arguments.what == "dashboard":
            from workbench.search.dashboard import open_dashboard

            return open_dashboard(Path(arguments.study), url) or 0
        return _new(arguments, url)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        from workbench.search.storage import without_secrets

        if url is None or isinstance(error, ModuleNotFoundError):
            raise
        raise ValueError(without_secrets(f"{type(error).__name__}: {error}", url)) from None


def _new(arguments: argparse.Namespace, url: str | None) -> int:
    from workbench.batch.source import typed
    from workbench.experiments.catalogue import find
    from workbench.runs.params import refuse_unknown
    from workbench.search.methods import parsed
    from workbench.search.objectives import parse
    from workbench.search.searches import Search, settings_for

    experiment = find(arguments.what)
    default = experiment.Params().model_dump()
    refuse_unknown([name for name, _ in arguments.p], default)
    name = arguments.name or arguments.what.rpartition(".")[2]
    settings = settings_for(
        experiment,
        name=name,
        objectives=tuple(map(parse, arguments.objective or ["valid"])),
        base={key: typed(value, default[key]) for key, value in arguments.p},
        size=arguments.profile,
        space=tuple(arguments.space),
        seeds=tuple(range(arguments.seeds)),
        top=arguments.top,
        sampler=parsed(arguments.sampler),
        pruner=parsed(arguments.pruner),
        trials=arguments.trials,
        seed=arguments.seed,
        lease_seconds=arguments.lease,
    )
    search = Search(settings, Path(arguments.root) / name, url)
    print(
        f"{name}: {arguments.trials} trials of {len(settings.seeds)} seeds, {settings.sampler.name} → {search.folder}"
    )
    try:
        best = search.run(arguments.trials, arguments.workers, Progress(arguments.trials), 60 * arguments.timeout)
    except KeyboardInterrupt:
        print(f"\nStopped; the same command goes on. {search.folder}")
        return 130
    print("\n".join([*search.damage(), _said(best, settings)]))
    return 0


def _worker(arguments: argparse.Namespace, url: str | None) -> int:
    import signal

    from workbench.search.searches import STOP, Search
    from workbench.search.worker import work

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    search = Search(None, Path(arguments.study), url)
    search.open()
    number = os.getpid() if arguments.number is None else arguments.number
    done = work(search.storage, search.settings, search.folder, number=number, say=_say, stop=search.folder / STOP)
    print(f"Nothing is left to do; this worker ran {done} trials.", flush=True)
    return 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Progress:
    """Shows a search: in a terminal one line is rewritten; elsewhere a line comes every half minute."""

    def __init__(self, trials: int) -> None:
        self.trials, self.begun, self.last, self.done_before = trials, time.monotonic(), 0.0, None

    def __call__(self, search: "Search", over: bool) -> None:
        """Look at the study, and show how far it is."""
        if not over and time.monotonic() - self.last < (1.0 if sys.stdout.isatty() else _LINE_EVERY_SECONDS):
            return
        self.last = time.monotonic()
        line = self._line(search)
        if sys.stdout.isatty():
            print(f"\r\x1b[2K{line[:110]}", end="\n" if over else "", flush=True)
        else:
            print(line, flush=True)

    def _line(self, search: "Search") -> str:
        from workbench.batch.progress_view import duration
        from workbench.search.export import ranked

        records = search.records()
        states = [one["state"] for one in records if not one["user_attrs"].get("lost")]
        done = sum(states.count(state) for state in ("complete", "pruned", "failed"))
        self.done_before = done if self.done_before is None else self.done_before
        best = ranked(records, search.settings)
        said = [f"{done} of {self.trials} trials"]
        said += [f"{states.count(state)} {state}" for state in ("pruned", "failed", "running") if state in states]
        said += [f"best {best[0]['values'][0]:.5g}"] if best else []
        if done > self.done_before and done < self.trials:
            each = (time.monotonic() - self.begun) / (done - self.done_before)
            said += [f"about {duration(each * (self.trials - done))} left"]
        if again := [one for one in search.records(fresh=True) if not one["user_attrs"].get("lost")]:
            over = sum(one["state"] not in ("waiting", "running") for one in again)
            said += [f"the best again with fresh seeds: {over} of {len(again)}"]
        return " · ".join(said)


def _said(best: dict, settings: object) -> str:
    if "pareto" in best:
        rows = [
            f"trial {one['trial']}: {', '.join(f'{value:.5g}' for value in one['values'])}" for one in best["pareto"]
        ]
        return "\n".join([f"{len(rows)} trials that no other beats in everything:", *rows])
    changed = {name: value for name, value in best["params"].items() if name in settings.space}
    low_high = (
        "" if best["interval"] is None else f", 95 % interval {best['interval'][0]:.5g} … {best['interval'][1]:.5g}"
    )
    return f"Best: trial {best['trial']}, {best['values'][0]:.5g}{low_high}: {best['chosen']}.\n{json.dumps(changed)}"
