"""How much memory a kernel takes, and whether the system killed something for lack of it."""

from pathlib import Path

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all its children; 0 when it is gone."""
    import psutil

    try:
        kernel = psutil.Process(pid)
        family = [kernel, *kernel.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def oom_kills() -> int | None:
    """How often the system killed a process of our control group for memory; None where it keeps no count."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in groups:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, file = Path("/sys/fs/cgroup"), "memory.events"
        elif "memory" in controllers.split(","):
            root, file = Path("/sys/fs/cgroup/memory"), "memory.oom_control"
        else:
            continue
        for folder in (root / path.lstrip("/"), root):  # inside a container the path may not be mounted
            count = _count(folder / file)
            if count is not None:
                return count
    return None


def _count(file: Path) -> int | None:
    try:
        fields = dict(line.split() for line in file.read_text().splitlines())
        return int(fields["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None


def size(text: str) -> int:
    """Bytes that a text like 800MB, 2 GB or 1.5g means (1 GB = 10⁹ bytes)."""
    number = text.strip().lower().removesuffix("b").removesuffix("i").strip()
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        count = int(float(number.removesuffix(unit)) * _UNITS[unit])
    except ValueError:
        raise ValueError(f"{text!r} is no size of memory; write it as 800MB or 2GB.") from None
    if count <= 0:
        raise ValueError(f"{text!r} leaves no memory; write it as 800MB or 2GB.")
    return count
