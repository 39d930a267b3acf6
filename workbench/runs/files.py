"""Files that survive a kill: whole-file writes, appended lines, and values as strict JSON."""

import json
import math
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

_mended: set[tuple[str, int]] = set()


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` at once: a reader, or a kill, meets the old file or the new one, never half of it."""
    path = Path(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Replace `path` at once with `value` as indented JSON."""
    write_bytes(path, (json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict:
    """The JSON object in `path`; a ValueError names the file when it is damaged."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}); it was damaged or edited by hand.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, and a JSON object was expected.")
    return value


def append_line(path: Path, record: Mapping[str, object]) -> None:
    """Add one JSON object as one line, in one write, so that lines of several processes never mix."""
    path = Path(path)
    line = json.dumps(plain(dict(record)), ensure_ascii=False) + "\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if (str(path), os.getpid()) not in _mended:  # a killed writer may have left half a line
            _mended.add((str(path), os.getpid()))
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[dict]:
    """The objects of an append-only log, oldest first; lines cut short by a kill are left out."""
    return read_lines_from(path, 0)[0]


def plain(value: object, where: str = "value") -> object:
    """`value` in JSON types: NumPy and torch values become numbers and lists, NaN and infinities null.

    Strict JSON has no NaN, and a file that other programs refuse to read is no record: null says "no number".
    """
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item, where) for item in value), key=repr)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if hasattr(value, "model_dump"):  # pydantic
        return plain(value.model_dump(), where)
    if hasattr(value, "detach"):  # torch, without importing it
        value = value.detach().cpu()
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, and torch tensors
        return plain(value.tolist(), where)
    raise TypeError(
        f"{where} is a {type(value).__name__}, which JSON cannot hold; "
        f"pass numbers, text, None, or lists and dicts of them."
    )


def read_lines_from(path: Path, offset: int) -> tuple[list[dict], int]:
    """The objects that an append-only log has gained since `offset`, and the offset to go on from."""
    if not Path(path).exists():
        return [], offset
    with open(path, "rb") as file:
        file.seek(offset)
        gained = file.read()
    whole = gained[: gained.rfind(b"\n") + 1]
    records = []
    for line in whole.splitlines():
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records, offset + len(whole)
