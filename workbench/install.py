"""Set up `.venv`: this project, editable, with the exact versions of constraints.txt. `make` starts this file.

It uses the standard library alone and parses on Python 3.6, so that an old Python can say which one is needed.
Start it as `python3 -I workbench/install.py --extras lab,nxai`: without `-I` the package's folders (`trace`, for
one) would shadow modules of the standard library.
"""

import argparse
import errno
import hashlib
import importlib.util
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "workbench-stamp.json")
LOG = os.path.join(VENV, "setup.log")
GIGABYTE = 1e9
WARN_BELOW_GB = 6.0  # PyPI's torch for Linux on x86_64 brings CUDA libraries
REFUSE_BELOW_GB = 2.5  # measured: 1.9 GB in .venv with a CPU build of torch


class SetUpError(Exception):
    """A set-up that cannot succeed here; its text says why and what to do."""


def main():
    """Leave a `.venv` that holds the wanted extras, or say why that cannot be; returns the exit status."""
    parser = argparse.ArgumentParser(description="Set up .venv with the exact versions of constraints.txt.")
    parser.add_argument("--extras", default="lab,nxai", help="extras of pyproject.toml, separated by commas")
    wanted = {extra for extra in parser.parse_args().extras.split(",") if extra}
    try:
        if sys.platform in ("win32", "cygwin"):
            raise SetUpError(
                "native Windows is not supported. Install WSL (`wsl --install` in PowerShell), clone the project "
                "inside it, and run the same command there."
            )
        low, high = python_range()
        if not low <= sys.version_info[:2] < high:
            better = find_python(low, high)
            os.execv(better, [better, "-I", os.path.abspath(__file__), *sys.argv[1:]])
        return set_up(wanted, low, high)
    except SetUpError as reason:
        print(f"\nSet-up stopped: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSet-up interrupted. Run the same command again; it goes on with what is there.", file=sys.stderr)
        return 130


def set_up(wanted, low, high):
    """Install what is missing, one set-up at a time; nothing when the stamp says that all is there."""
    if is_ready(read_stamp(), wanted):
        return 0
    started = time.monotonic()
    try:
        lock = take_lock()
        stamp = read_stamp()  # another set-up may have finished while this one waited
        if is_ready(stamp, wanted):
            return 0
        extras = sorted(wanted | set(stamp.get("extras", [])))
        if not stamp.get("extras"):
            check_disk()
        make_venv(low, high, moved=stamp.get("root", ROOT) != ROOT)
        write_stamp({"extras": stamp.get("extras", [])})  # without a fingerprint it is not valid
        install(extras, lock)
        write_stamp({"fingerprint": fingerprint(), "root": ROOT, "extras": extras, "python": version_of(PYTHON)})
    except OSError as problem:
        raise SetUpError(explain_os_error(problem)) from problem
    print(f"Set up in {minutes(time.monotonic() - started)}.", flush=True)
    return 0


def read_stamp():
    """The stamp as a dict; empty when there is none or it cannot be read."""
    try:
        with open(STAMP) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_stamp(content):
    """Replace the stamp in one move."""
    with open(STAMP + ".new", "w") as file:
        json.dump(content, file)
    os.replace(STAMP + ".new", STAMP)


def is_ready(stamp, wanted):
    """Whether the stamp fits the requirements, the extras, this folder, and a Python that still runs."""
    return (
        stamp.get("fingerprint") == fingerprint()
        and stamp.get("root") == ROOT
        and wanted <= set(stamp.get("extras", []))
        and version_of(PYTHON, imports="workbench") == stamp.get("python")
    )


def fingerprint():
    """A hash of everything that decides what pip installs."""
    import tomllib  # exists wherever this is called: Python >= 3.11

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)
    with open(os.path.join(ROOT, "constraints.txt")) as file:
        pins = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    parts = [project["project"], project.get("build-system"), project.get("tool", {}).get("setuptools"), pins]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def python_range():
    """The first supported Python and the first too new, both (major, minor), as pyproject.toml says."""
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as file:
        found = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"', file.read(), re.MULTILINE)
    return (3, int(found.group(1))), (3, int(found.group(2)))


def version_of(python, imports="sys"):
    """The version that this Python prints, or None when it does not run or lacks the module."""
    check = "import sys, importlib.util as u; print(sys.version.split()[0] if u.find_spec({!r}) else '')"
    try:
        answer = subprocess.check_output([python, "-I", "-c", check.format(imports)], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.decode().strip() or None


def find_python(low, high):
    """Path of a supported Python on PATH; refuses when there is none."""
    for minor in sorted(range(low[1], high[1]), key=lambda minor: abs(minor - 12)):  # the middle is the best tried
        path = shutil.which(f"python3.{minor}")
        if path and (version_of(path) or "").startswith(f"3.{minor}."):
            print(f"Python {here()} is {age(low)}; going on with {path}.", flush=True)
            return path
    raise SetUpError(
        f"Python {here()} found, which is {age(low)}: 3.{low[1]} to 3.{high[1] - 1} are supported, "
        "and no other is on PATH.\nInstall one (Debian, Ubuntu: sudo apt install python3 python3-venv; "
        "macOS: brew install python@3.13; anywhere: conda env create -f environment.yml),\n"
        "then run the same command, or name it: make run PYTHON=/path/to/python3.13"
    )


def here():
    """The version of the running Python, as text."""
    return "{}.{}.{}".format(*sys.version_info[:3])


def age(low):
    """What is wrong with the running Python."""
    return "too old" if sys.version_info[:2] < low else "newer than the pinned packages"


def take_lock():
    """An open lock on `.venv`, so that two set-ups never write to it at once; the system frees it at the end."""
    import fcntl  # not on Windows

    os.makedirs(VENV, exist_ok=True)
    lock = os.open(VENV, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another set-up of this folder is at work; waiting for it.", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def check_disk():
    """Refuse when the packages cannot fit; warn when they may not."""
    free = shutil.disk_usage(ROOT).free / GIGABYTE
    if free < REFUSE_BELOW_GB:
        raise SetUpError(
            f"{free:.1f} GB are free in {ROOT}, and the packages need 2 GB or more. Free some space "
            "(`make clean` removes .venv, `pip cache purge` removes downloads), or clone the project to "
            "another disk."
        )
    if free < WARN_BELOW_GB:
        print(
            f"Note: {free:.1f} GB are free in {ROOT}. That is enough for a CPU build of torch (2 GB in all), "
            "not for one with CUDA (up to 8 GB)."
        )


def make_venv(low, high, moved):
    """A virtual environment with a supported Python and pip; one that works, and was not moved here, is kept."""
    version = version_of(PYTHON, imports="pip")
    if version and not moved and low <= tuple(map(int, version.split(".")[:2])) < high:
        return
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise SetUpError(
                f"this Python ({sys.executable}) has no module '{module}'. On Debian and Ubuntu: "
                f"sudo apt install python3-venv (or python3.{sys.version_info[1]}-venv). "
                "Then run the same command."
            )
    done = subprocess.run(
        [sys.executable, "-I", "-m", "venv", "--clear", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise SetUpError("python -m venv failed:\n{}".format(done.stdout.decode(errors="replace").strip()))


def explain_os_error(problem):
    """What to do about a folder that refuses to be written."""
    if problem.errno == errno.ENOSPC:
        return f"the disk is full ({problem}). Free some space, then run the same command."
    return (
        f"cannot write to {VENV}: {problem}.\nThe project's folder must be writable, and `.venv` a folder in it. "
        "Clone the project into your home folder, or make this one yours (chmod u+w, chown), "
        "then run the same command."
    )


def install(extras, lock):
    """Run pip in `.venv`, show how far it is, and turn a failure into advice."""
    print(
        f"Setting up .venv with Python {version_of(PYTHON)}: {count_pins()} packages, about 2 GB and 2 minutes "
        "with a fast index and a CPU build of torch\n(PyPI's torch for Linux on x86_64 adds several GB of CUDA). "
        f"Details: {os.path.relpath(LOG)}",
        flush=True,
    )
    command = [PYTHON, "-I", "-m", "pip", "install", "--progress-bar", "off", "--no-input"]
    command += ["--disable-pip-version-check", "--constraint", os.path.join(ROOT, "constraints.txt")]
    command += ["--editable", "{}[{}]".format(ROOT, ",".join(extras)) if extras else ROOT]
    # pip holds the lock too: should this process be killed, no second pip starts beside the first
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, pass_fds=(lock,)
    )
    try:
        lines = follow(process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
    if process.returncode:
        raise SetUpError(explain_pip("\n".join(lines)))


def count_pins():
    """How many packages constraints.txt names."""
    with open(os.path.join(ROOT, "constraints.txt")) as file:
        return sum("==" in line for line in file)


def follow(process):
    """Log pip's output, show progress while it runs, and return the lines."""
    incoming = queue.Queue()

    def read():
        for raw in process.stdout:
            incoming.put(raw.decode(errors="replace").rstrip())
        incoming.put(None)

    threading.Thread(target=read, daemon=True).start()
    lines, phase, shown, started = [], "starting pip", 0.0, time.monotonic()
    with open(LOG, "w") as log:
        while True:
            try:
                line = incoming.get(timeout=0.2)
            except queue.Empty:
                line = ""
            if line is None:
                break
            if line:
                lines.append(line)
                log.write(line + "\n")
                log.flush()
                phase = describe(line) or phase
            now = time.monotonic()
            if now - shown >= (0.2 if sys.stdout.isatty() else 10.0):
                show(phase() if callable(phase) else phase, now - started)
                shown = now
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    return lines


def show(phase, seconds):
    """One line on a terminal, rewritten; elsewhere a new line."""
    text = f"  {minutes(seconds)} {phase}"
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print("\r\033[K" + text[: width - 1], end="", flush=True)
    else:
        print(text, flush=True)


def describe(line):
    """What pip is doing, in words: text, a function that returns it, or None when this line does not say."""
    words = line.split()
    if line.startswith("Installing collected packages:"):
        names = [word.rstrip(",") for word in words[3:]]
        return lambda: count_installed(names)
    if len(words) > 1 and words[0] in ("Collecting", "Downloading", "Processing", "Building"):
        verb = {"Collecting": "looking up", "Processing": "reading"}.get(words[0], words[0].lower())
        return verb + " " + os.path.basename(words[1]) + " " + " ".join(words[2:])
    return None


def count_installed(names):
    """How many of these packages `.venv` holds by now, and the next one."""
    lib = os.path.join(VENV, "lib")
    found = {
        plain(entry.split("-")[0])
        for python in os.listdir(lib)
        for entry in os.listdir(os.path.join(lib, python, "site-packages"))
        if entry.endswith(".dist-info")
    }
    missing = [name for name in names if plain(name) not in found]
    return "installing {} of {}: {}".format(len(names) - len(missing), len(names), missing[0] if missing else "last")


def plain(name):
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def explain_pip(output):
    """The advice that fits what pip printed, then its last lines."""
    tail = "\n".join("  " + line for line in output.splitlines()[-8:])
    unreachable = (
        r"NewConnectionError|Max retries|ConnectTimeout|ReadTimeout|ProxyError|SSLError|name resolution"
        r"|\(from versions: none\)"
    )
    missing = r"No matching distribution found|ResolutionImpossible"
    if re.search(r"No space left on device|Errno 28\b", output):
        advice = "the disk is full. Free some space here or in TMPDIR, then run the same command."
    elif re.search(unreachable, output):
        advice = (
            "pip cannot reach a package index, or finds it empty. Check the network, or set HTTPS_PROXY to your proxy "
            "or PIP_INDEX_URL to a mirror that you can reach. Then run the same command; downloads are kept."
        )
    elif re.search(missing, output):
        advice = (
            "the package index does not offer the versions of constraints.txt for this Python "
            f"({version_of(PYTHON)}) and machine. Try another Python (make clean, then make run PYTHON=python3.13) "
            "or another index (PIP_INDEX_URL)."
        )
    elif re.search(r"Permission denied|Read-only file system|Errno 13\b|Errno 30\b", output):
        advice = f"pip may not write to {VENV}. Make the folder yours, then run the same command."
    else:
        advice = "pip failed. Run the same command again; if it fails again, `make clean` first."
    return f"{advice}\nThe end of {LOG}:\n{tail}"


def minutes(seconds):
    """A duration as `m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


if __name__ == "__main__":
    sys.exit(main())
