"""The command line; each file of this folder adds a few commands, and says what their flags are."""

import argparse
import sys
from collections.abc import Callable

import workbench
from workbench.cli import batch, kernels, kubernetes, notebooks, runs, search

USAGE, INTERRUPTED = 2, 130
OPEN = ("demo", "lab")  # the demo's flags come from its Params, those of the lab go to Jupyter


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 ok, 1 the run failed, 2 it could not start, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    end = words.index("--") if "--" in words else len(words)  # argparse loses what stands after it
    words, after = words[:end], words[end + 1 :]
    words = sorted(words, key=lambda word: word != "--offline")  # it may stand anywhere, and is parsed at the front
    arguments, rest = _parser().parse_known_args(words)
    arguments.after = after  # flags of Snakemake, or of a search
    rest += [] if arguments.command in ("batch", "kubernetes") else after
    if rest and arguments.command not in OPEN:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    command: Callable = arguments.call
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema takes a second to load it; notebooks hold no such URIs
    try:
        return command(arguments, rest) if arguments.command in OPEN else command(arguments)
    except ModuleNotFoundError as error:
        from workbench.doctor import INSTALL

        print(f"workbench {arguments.command}: {error}; {INSTALL}", file=sys.stderr)
        return USAGE
    except (ValueError, OSError) as error:
        print(f"workbench {arguments.command}: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="workbench", description=workbench.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"workbench {workbench.__version__}")
    parser.add_argument("--offline", action="store_true", help="download nothing; it may stand anywhere")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in (notebooks, batch, kubernetes, search, runs, kernels):
        part.add(commands)
    return parser
