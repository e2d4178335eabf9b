"""A Slurm of one node on loopback, with two GPUs that are stand-in files: made, started and stopped by the tests."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "slurmctld", "slurmd", "munged")
# Cores that the node claims to have; it is told to believe it.
NUM_CPUS = 4
START_TIMEOUT_S = 60.0


def missing() -> str:
    """Why no cluster can be started here; empty if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "slurmd and slurmctld start jobs of other users, so they need root"


_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Cluster:
    """One controller and one node; `environment` makes Slurm's programs talk to them."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="tuner-slurm-"))
        self.root.chmod(0o755)
        self.environment = {"SLURM_CONF": str(self.root / "slurm.conf"), "PATH": _PATH}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._configure()
        munge = self.root / "munge"
        munge.mkdir(mode=0o755)
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        self._wait(lambda: (munge / "socket").exists(), "munged")
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D")
        self._wait(lambda: self.run("sinfo", "-h", "-o", "%T").stdout.strip() == "idle", "the node")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def stop(self) -> None:
        self.run("scancel", "--user=root")
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def logs(self) -> str:
        files = [self.root / "slurmctld.log", self.root / "slurmd.log"]
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in files if file.is_file())

    def _daemon(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=_PATH)
        assert program is not None
        with open(self.root / f"{name}.out", "wb") as log:
            self._daemons.append(
                subprocess.Popen(
                    [program, *arguments], env=os.environ | self.environment, stdout=log, stderr=log, cwd=self.root
                )
            )

    def _wait(self, is_there: object, what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_there():  # type: ignore[operator]
            assert time.monotonic() < deadline, f"{what} did not start\n{self.logs()}"
            time.sleep(0.2)

    def _configure(self) -> None:
        host, ports = socket.gethostname(), []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(free.getsockname()[1])
        for name in ("state", "spool"):
            (self.root / name).mkdir()
        for number in range(2):
            os.mknod(self.root / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (self.root / "gres.conf").write_text(
            f"NodeName={host} Name=gpu File={self.root}/gpu[0-1] Flags=nvidia_gpu_env\n"
        )
        (self.root / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
        (self.root / "slurm.conf").write_text(
            f"""ClusterName=tuner
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={self.root}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={self.root}/state
SlurmdSpoolDir={self.root}/spool
SlurmctldPidFile={self.root}/slurmctld.pid
SlurmdPidFile={self.root}/slurmd.pid
SlurmctldLogFile={self.root}/slurmctld.log
SlurmdLogFile={self.root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=10
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,requeue_setup_env_fail
NodeName={host} NodeAddr=127.0.0.1 CPUs={NUM_CPUS} RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
        )
