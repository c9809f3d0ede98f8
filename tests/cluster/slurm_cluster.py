"""A SLURM cluster of two nodes on this machine, from Debian's slurm-wlm; all it writes is in one folder."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
NODES = ("n1", "n2")
CONFIG = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout=300
KillWait=60
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Install what is missing."""
    if os.geteuid() != 0:
        raise SystemExit(
            "make slurm-test needs root, to install and to start SLURM's daemons: run it in a container of your own"
        )
    if all(map(shutil.which, ("sbatch", "munged", "slurmctld", "slurmd"))):
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
    subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", *PACKAGES], check=True, env=quiet)


@contextmanager
def started(folder: Path) -> Iterator[dict[str, str]]:
    """The daemons, for the time within; what is given are the variables by which SLURM's commands find them."""
    install()
    folder.chmod(0o755)
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(CONFIG.format(host=socket.gethostname(), ports=free_ports(3), folder=folder))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    commands = [munged, ["slurmctld", "-D", "-f", str(folder / "slurm.conf")]]
    commands += [["slurmd", "-D", "-f", str(folder / "slurm.conf"), "-N", node] for node in NODES]
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(1)
        wait_for_nodes(variables, folder)
        yield variables
    finally:
        end(processes, variables)


def end(processes: list["subprocess.Popen[bytes]"], variables: dict[str, str]) -> None:
    """End the jobs, then the daemons."""
    if len(processes) > 1:
        subprocess.run(["scancel", "--user=root"], env={**os.environ, **variables}, capture_output=True, check=False)
        time.sleep(2)
    for process in reversed(processes):
        process.terminate()
        process.wait(30)


def wait_for_nodes(variables: dict[str, str], folder: Path) -> None:
    """Wait until both nodes take jobs."""
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(["sinfo", "-hN", "-o", "%T"], env={**os.environ, **variables}, capture_output=True, text=True)
        if done.stdout.split() == ["idle"] * len(NODES):
            return
        assert time.monotonic() < deadline, done.stdout + done.stderr + (folder / "slurmctld.log").read_text()
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
