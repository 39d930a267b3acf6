"""`workbench kubernetes`: write the manifests of a batch or a search; run one run in its pod."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.batch.kubernetes import Place


def add(commands: argparse._SubParsersAction) -> None:
    """Add this command."""
    about = "write manifests that run a batch or a search on a Kubernetes cluster"
    kinds = commands.add_parser("kubernetes", help=about).add_subparsers(required=True, metavar="WHAT")
    batch = kinds.add_parser("batch", help="the Jobs of a plan, one for each group")
    batch.add_argument("plan", help="a YAML file, or the folder of a batch")
    batch.set_defaults(call=_batch)
    search = kinds.add_parser("search", help="a search on a PostgreSQL database; its own words stand after --")
    search.add_argument("name", help="of the study")
    search.add_argument("--workers", type=int, default=4, metavar="N", help="pods (4)")
    search.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of each pod (1)")
    search.add_argument("--storage", required=True, metavar="URL", help="the database, without its password")
    search.add_argument("--secret", default="workbench-storage", help="Secret with the key `password` (%(default)s)")
    search.set_defaults(call=_search)
    for parser in (batch, search):
        parser.add_argument("--to", required=True, metavar="DIR", help="folder of the manifests")
        parser.add_argument("--image", required=True, help="container image with the package and the project")
        parser.add_argument("--claim", default="workbench", help="volume claim that all pods share (%(default)s)")
        parser.add_argument("--gigabytes", type=int, default=50, help="of the claim; 0 takes one that is there (50)")
    pod = kinds.add_parser("pod", help="what a pod of a batch does")
    pod.add_argument("plan")
    pod.add_argument("group")
    pod.add_argument("--root", default="batches")
    pod.set_defaults(call=_pod)


def _batch(arguments: argparse.Namespace) -> int:
    from workbench.batch.batches import Batch
    from workbench.batch.kubernetes import batch_manifests, write_manifests

    files = batch_manifests(Batch(arguments.plan), _place(arguments))
    return _say(write_manifests(Path(arguments.to), files))


def _search(arguments: argparse.Namespace) -> int:
    from workbench.batch.kubernetes import search_manifests, write_manifests

    if not arguments.after:
        raise ValueError("what is searched is missing; write it behind --, as `-- forecast --trials 100`.")
    files = search_manifests(
        arguments.name, arguments.after, arguments.workers, _place(arguments),
        storage=arguments.storage, secret=arguments.secret, threads=arguments.threads,
    )  # fmt: skip
    print(f"The password: kubectl create secret generic {arguments.secret} --from-file=password=FILE")
    return _say(write_manifests(Path(arguments.to), files))


def _pod(arguments: argparse.Namespace) -> int:
    from workbench.batch.batches import Batch
    from workbench.batch.kubernetes import run_in_pod

    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not index.isdigit():
        raise ValueError(f"JOB_COMPLETION_INDEX={index!r} is no number; Kubernetes sets it in pods of an indexed Job.")
    run = run_in_pod(Batch(arguments.plan, arguments.root), arguments.group, int(index))
    return 0 if run.status().state == "ok" else 1


def _place(arguments: argparse.Namespace) -> "Place":
    from workbench.batch.kubernetes import Place

    return Place(arguments.image, arguments.claim, arguments.gigabytes)


def _say(paths: list[Path]) -> int:
    print("\n".join(map(str, paths)))
    print(f"Begin: kubectl apply -f {paths[0].parent}")
    return 0
