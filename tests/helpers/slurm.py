"""A Slurm of two machines with a processor each, which are this one: Debian's slurm-wlm, for root."""
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import psutil

from helpers.waiting import eventually

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def missing():
    """The programs that Slurm needs and this machine lacks."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def cluster(folder: Path):
    """The environment for Slurm's commands; all of Slurm ends with the body."""
    folder.chmod(0o755)
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(_CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=folder,
                                                   ports=_free_ports(3)))
    environment = os.environ | {"SLURM_CONF": str(configuration), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    programs = [["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.sock",
                 f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed"],
                ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]
    with contextlib.ExitStack() as stack:
        stack.callback(_end_steps, folder)
        for program in programs:
            process = stack.enter_context(subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL,
                                                           stderr=subprocess.DEVNULL))
            stack.callback(_end, process)
        if not eventually(lambda: _state(environment).split() == ["idle", "idle"]):
            raise RuntimeError(f"Slurm does not start: {_state(environment)}")
        yield environment
        eventually(lambda: not subprocess.run(["squeue", "-h"], env=environment, capture_output=True).stdout)


def _end_steps(folder):
    """Ends the daemons of job steps, which outlive all others: they have their log in the folder."""
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "slurmstepd" and any(file.path.startswith(f"{folder}/")
                                                        for file in process.open_files()):
            process.kill()


def _end(process):
    """Ends a program, with what it has started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    finally:
        process.kill()


def _state(environment):
    return subprocess.run(["sinfo", "-h", "-N", "-o", "%t"], env=environment, text=True, capture_output=True).stdout
