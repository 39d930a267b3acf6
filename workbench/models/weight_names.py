"""What converters of weights ask of names: that all blocks are there, and nothing is missing or unknown."""

import re
from collections.abc import Iterable


def count_blocks(names: Iterable[str], path: str) -> int:
    """How many blocks lie below a path, `path.0. ...`, `path.1. ...` and so on.

    Raises:
        ValueError: there is none, or one is missing.
    """
    matches = (re.match(rf"{re.escape(path)}\.(\d+)\.", name) for name in names)
    found = sorted({int(match[1]) for match in matches if match})
    if found != list(range(len(found))) or not found:
        raise ValueError(f"these weights hold {path} {found}, and must hold all from 0 upwards.")
    return len(found)


def check_names(
    where: str, got: Iterable[str], wanted: Iterable[str], question: str, optional: Iterable[str] = ()
) -> None:
    """Refuse names that are not those wanted.

    Args:
        where: what holds the names, for the message.
        got: names that are there.
        wanted: names that must be there, the optional ones among them or not.
        question: what to look at where they differ.
        optional: names that may be missing.

    Raises:
        ValueError: a name is missing or unknown.
    """
    got, wanted, optional = set(got), set(wanted), set(optional)
    missing, unknown = sorted(wanted - got - optional), sorted(got - wanted - optional)
    if missing or unknown:
        raise ValueError(
            f"{where} lacks {', '.join(missing) or 'nothing'} and has the unknown {', '.join(unknown) or 'nothing'}; "
            f"{question}"
        )
