"""A Slurm cluster of one node on this machine: munged, slurmctld, slurmd in a temporary folder, on free loopback ports.

`python -m tests.services.slurm` starts one, says how to talk to it, and ends it with Ctrl-C.
"""

import getpass
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
_PATIENCE = 60.0

CONF = """\
ClusterName=workbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
CommunicationParameters=NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
MailProg=/bin/true
ReturnToService=2
MinJobAge=300
KillWait=10
MaxJobCount=1000
GresTypes=gpu
NodeName=wb NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=wb Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=100
"""


class Slurm:
    """The cluster. Its clients find it by `environment`; more CPUs and GPUs are declared than there may be."""

    def __init__(self, folder: Path, cpus: int, gpus: int) -> None:
        self.folder, self.cpus, self.gpus = folder, cpus, gpus
        self.daemons: list[subprocess.Popen] = []
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}:{PATH}"}

    def start(self) -> None:
        """Start the daemons, and wait until the node takes jobs."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        self._write_settings()
        own = [f"--{name}={self.folder / 'munge'}.{name.removesuffix('-file')}" for name in _MUNGE_FILES]
        self._spawn("munged", "--foreground", "--force", *own)
        self._until((self.folder / "munge.socket").exists, "munged")
        self._spawn("slurmctld", "-D")
        self._spawn("slurmd", "-D", "-N", "wb")
        self._until(lambda: self.call("sinfo", "-h", "-o", "%T", check=False) in ("idle", "mixed"), "slurmd")

    def call(self, *command: str, check: bool = True) -> str:
        """What one of Slurm's commands says."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def jobs(self, state: str = "all") -> dict[str, str]:
        """Job id to state, of all jobs that Slurm remembers."""
        lines = self.call("squeue", "-h", f"--states={state}", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def stop(self) -> None:
        """End all jobs, the daemons, and whatever is left of both."""
        if len(self.daemons) > 1:
            with suppress(AssertionError, subprocess.TimeoutExpired):
                self.call("scancel", "--signal=KILL", "--full", *self.jobs("running"), check=False)
                self.call("scancel", *self.jobs("running,pending,completing"), check=False)
                self._until(lambda: not self.jobs("running,pending,completing"), "the end of all jobs")
        for daemon in reversed(self.daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for daemon in self.daemons:
            daemon.wait()

    def processes(self) -> list[psutil.Process]:
        """All processes of this cluster: the daemons, and what jobs have started."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            inside = process.environ().get("SLURM_CONF") == str(self.folder / "slurm.conf")
            return inside and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def _write_settings(self) -> None:
        ports = {"ctld_port": _free_port(), "slurmd_port": _free_port()}
        facts = {"host": platform.node().split(".")[0], "user": getpass.getuser(), "folder": self.folder, **ports}
        sizes = {"cpus": self.cpus, "gpus": self.gpus, "memory": 8000}
        (self.folder / "slurm.conf").write_text(CONF.format(**facts, **sizes))
        stand_ins = ["/dev/null", "/dev/zero", "/dev/full"][: self.gpus]  # devices that are everywhere, never opened
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={name}\n" for name in stand_ins))
        # Snakemake's step in a job calls srun without SLURM_CONF: elsewhere the settings are where Slurm looks.
        srun = f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun", path=PATH)} "$@"\n'
        (self.folder / "srun").write_text(srun)
        (self.folder / "srun").chmod(0o755)
        # Nothing here asks for cgroups; the plugin for v2 would want systemd at once, that for v1 wants nothing.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _spawn(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "wb") as said:
            self.daemons.append(
                subprocess.Popen(
                    command, env=os.environ | self.environment, stdin=subprocess.DEVNULL,
                    stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
                )
            )  # fmt: skip

    def _until(self, ready: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not ready():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                logs = [f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in self._logs()]
                raise RuntimeError(f"Waited for {what} in vain.\n" + "\n".join(logs))
            time.sleep(0.1)

    def _logs(self) -> list[Path]:
        return sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])


_MUNGE_FILES = ("key-file", "socket", "pid-file", "log-file", "seed-file")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def slurm(cpus: int = 4, gpus: int = 2) -> Iterator[Slurm]:
    """A running cluster; where Slurm is not installed, the test that asks is skipped."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="wb-slurm-"))
    folder.chmod(0o755)
    cluster = Slurm(folder, cpus, gpus)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Keep a cluster until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with slurm() as cluster, suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={cluster.folder / 'slurm.conf'}   # Ctrl-C ends it", flush=True)
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
