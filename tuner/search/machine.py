"""What the machine has for workers: cores, graphics cards, memory; and the environment that gives each its share."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tuner.config import SearchConfig
from tuner.search.seeds import NUM_FRESH_SEEDS

__all__ = [
    "available_memory_bytes",
    "card_environment",
    "cards_with_room",
    "environments_of",
    "growing_cards",
    "network_file_system",
    "num_cores",
    "num_memory_kills",
    "num_workers",
    "own_memory_bytes",
    "visible_gpus",
    "worker_environments",
]

# Memory that is reckoned with for a worker when their number is `auto`. Source: `ps` of workers on three small data
# sets showed 1.0 to 1.1 GB, most of it TensorFlow itself.
WORKER_MEMORY_BYTES = 1_200_000_000
# Another worker starts on a card if its memory has room for so many times what one there holds: trials differ in what
# they need, and a worker gives none of it back. And no more than so many on one. Source: convention; not measured.
ROOM_FACTOR = 2.0
MAX_WORKERS_OF_CARD = 4
# How long the driver's program may take to list the cards. Source: convention.
LISTING_TIMEOUT_S = 20.0

# File systems that several machines write to, as /proc/mounts calls them. Source: the Linux kernel's documentation and
# the manuals of the parallel ones.
_NETWORK_FILE_SYSTEMS = (
    *(
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fhgfs",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
    ),
    *("nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
)
# How /proc/mounts writes spaces and the like: \040.
_ESCAPED = re.compile(r"\\([0-7]{3})")

# Read by TensorFlow, oneDNN, OpenBLAS and MKL when they start; what the user has set stays.
_ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    )
}


def num_workers(asked: Literal["auto"] | int, *, most: int) -> int:
    """How many workers to start.

    Args:
        asked: The user's number, or `auto`: one for each graphics card, or without any for each core that this process
            may use, as far as the memory goes.
        most: No more than there is work for.
    """
    if asked != "auto":
        return max(1, min(asked, most))
    memory = available_memory_bytes()
    fitting = most if memory is None else memory // WORKER_MEMORY_BYTES
    return max(1, min(len(visible_gpus()) or num_cores(), fitting, most))


def environments_of(config: SearchConfig, *, only_confirm: bool = False) -> list[dict[str, str]]:
    """What each worker of a search has in its environment beside this process's own; as many as there are workers."""
    # A confirmation of any size is small beside the search, and its parts are counted by the workers.
    count = num_workers(config.workers, most=max(config.trials, NUM_FRESH_SEEDS * config.confirm))
    return worker_environments(count, may_grow=bool(growing_cards(config, only_confirm=only_confirm)))


def growing_cards(config: SearchConfig, *, only_confirm: bool) -> tuple[str, ...]:
    """The graphics cards that more workers may come to."""
    return visible_gpus() if config.workers == "auto" and not only_confirm else ()


def worker_environments(count: int, *, may_grow: bool = False) -> list[dict[str, str]]:
    """What each of so many workers has in its environment beside this process's own.

    Several workers on cores have one thread each, so that they do not fight; one alone has all of them. Several on
    graphics cards have one card each, in turn, and take of its memory what they need.

    Args:
        count: Workers.
        may_grow: Whether others may come to the cards later (`cards_with_room`).
    """
    gpus = visible_gpus()
    if gpus and (count > 1 or may_grow):
        is_shared = may_grow or count > len(gpus)
        return [card_environment(gpus[number % len(gpus)], is_shared=is_shared) for number in range(count)]
    if count == 1:
        return [{}]
    pinned = {name: value for name, value in _ONE_THREAD.items() if name not in os.environ}
    # JAX on a CPU has no variable of its own for it.
    flags = os.environ.get("XLA_FLAGS", "")
    if "intra_op_parallelism_threads" not in flags and os.environ.get("KERAS_BACKEND") == "jax":
        pinned["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1".strip()
    return [pinned] * count


def card_environment(card: str, *, is_shared: bool) -> dict[str, str]:
    """What a worker on a card has in its environment; one that shares it takes of its memory what it needs."""
    shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {"CUDA_VISIBLE_DEVICES": card} | (shared if is_shared else {})


def cards_with_room(num_workers: Mapping[str, int]) -> list[str]:
    """The cards that one more worker fits on, by what the driver says that those there hold now.

    Args:
        num_workers: How many there are on each card, by its name in `CUDA_VISIBLE_DEVICES`.

    Returns:
        Names of cards; none where the machine's own memory does not suffice for another.
    """
    memory = available_memory_bytes()
    if memory is not None and memory < WORKER_MEMORY_BYTES:
        return []
    listed = _nvidia_smi("index,uuid,memory.used,memory.total", "csv,noheader,nounits")
    found = []
    for fields in (line.split(", ") for line in listed):
        if len(fields) != 4 or not (fields[2].isdigit() and fields[3].isdigit()):
            # The driver does not say it of every card, such as one that is cut in parts (MIG).
            continue
        index, uuid, used, total = fields[0], fields[1], int(fields[2]), int(fields[3])
        for name, count in num_workers.items():
            is_it = name == index or (name.startswith("GPU-") and uuid.startswith(name))
            if is_it and count < MAX_WORKERS_OF_CARD and used + ROOM_FACTOR * used / max(count, 1) <= total:
                found.append(name)
    return found


def num_cores() -> int:
    """Cores that this process may use: of its affinity and, in a container, its quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _first_words(Path("/sys/fs/cgroup/cpu.max"))
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores)


def visible_gpus() -> tuple[str, ...]:
    """NVIDIA's cards that this process may use, as `CUDA_VISIBLE_DEVICES` names them; found without TensorFlow."""
    if shutil.which("nvidia-smi") is None:
        return ()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",")]
        return tuple(names[: names.index("-1")] if "-1" in names else filter(None, names))
    return tuple(line for line in _nvidia_smi("index", "csv,noheader") if line.isdigit())


def _nvidia_smi(query: str, form: str) -> list[str]:
    """The lines that the driver's program answers, one for each card; empty where there is none, or it fails."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", f"--format={form}"],
            capture_output=True,
            text=True,
            timeout=LISTING_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines()]


def available_memory_bytes() -> int | None:
    """Memory that can still be had: of the machine and, in a container, of its limit; None where nobody says it."""
    found = []
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            found.append(1024 * int(line.split()[1]))
    limit, used = (_first_words(Path(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current"))
    if limit and used and limit[0].isdigit() and used[0].isdigit():
        found.append(max(0, int(limit[0]) - int(used[0])))
    return min(found, default=None)


def own_memory_bytes() -> int | None:
    """Memory that this process holds alone, without files that it has mapped; None where nobody says it."""
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return None


def network_file_system(path: Path, *, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the network file system that a path is on, such as `nfs4`; empty if it is on none, or nobody says.

    Args:
        path: It need not exist.
        mounts: The list of what is mounted where.
    """
    place = os.path.realpath(path)
    found = ("", "")
    for line in _lines(mounts):
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[1])
        # Of two on the same point the later one hides the other.
        if (place + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(found[0]):
            found = (point, fields[2])
    return found[1] if found[1] in _NETWORK_FILE_SYSTEMS else ""


def _first_words(file: Path) -> list[str]:
    return next((line.split() for line in _lines(file)), [])


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def num_memory_kills() -> int:
    """How often the kernel has killed a process here because memory ran out; 0 where it does not say."""
    cgroups = Path("/sys/fs/cgroup")
    files = (Path("/proc/vmstat"), cgroups / "memory.events", cgroups / "memory/memory.oom_control")
    lines = [line.split() for file in files for line in _lines(file)]
    return sum(int(words[1]) for words in lines if len(words) == 2 and words[0] == "oom_kill")
