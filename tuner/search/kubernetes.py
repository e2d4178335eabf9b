"""Workers as an Indexed Job of Kubernetes: its manifest, its submission with kubectl, its state, and its end."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.config import dump_yaml
from tuner.errors import ConfigError, EnvironmentFault
from tuner.records import BatchJobs
from tuner.search.scheduler import STRIDE, ask, require_program
from tuner.store import RunFolder, write_text

__all__ = ["OPTIONS", "PROGRAM", "PodOptions", "cancel", "render", "states", "submit"]

PROGRAM = "kubectl"

# Pods that may fail, for each worker, before Kubernetes gives the Job up. Source: convention; evictions count, too.
BACKOFF_PER_POD = 6
# How long a pod has to end by itself, in seconds. Source: workers are given 5 (`tuner.search.supervisor`).
GRACE_S = 60

# What Kubernetes allows. Source: its documentation, "Object Names and IDs", "Resource units", "Secrets".
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?")
_SECRET = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?):([-._a-zA-Z0-9]+)")


@dataclass(frozen=True)
class PodOptions:
    """What one pod gets; names as on the command line of `submit`.

    Attributes:
        image: Of this program (`Dockerfile`).
        claim: PersistentVolumeClaim that holds the run folder, which pods on all nodes may write.
        mount: Where the volume appears in the pods; the run folder has the same path there as here. Empty: the folder
            that the run lies in.
        secret: Where the password of the database is, NAME:KEY; empty for none.
        namespace: Empty for kubectl's own.
        jobs: How many pods; each runs the workers of `--workers` on what it was given.
        cpus, gpus: Of each pod.
        memory: As 16Gi; empty for no limit.
    """

    image: str
    claim: str
    mount: str = ""
    secret: str = ""
    namespace: str = ""
    jobs: int = 2
    cpus: int = 4
    gpus: int = 0
    memory: str = ""


OPTIONS = PodOptions


def render(folder: RunFolder, options: PodOptions) -> str:
    """The manifest of the Job, as YAML.

    Raises:
        ConfigError: A value is none that Kubernetes takes, or the run folder does not lie on the volume.
    """
    return dump_yaml(_manifest(folder, options, name=f"tuner-{secrets.token_hex(4)}"))


def submit(folder: RunFolder, options: PodOptions, *, version: str) -> BatchJobs:
    """Write the manifest into the run folder, apply it, and note the Job.

    Args:
        folder: A run that is set up.
        options: What each pod gets.
        version: Of this program, which the image must have too.

    Raises:
        EnvironmentFault: There is no kubectl here, or the cluster refuses the Job.
    """
    require_program(PROGRAM)
    manifest = _manifest(folder, options, name=f"tuner-{secrets.token_hex(4)}")
    file = folder.root.absolute() / "job.yaml"
    write_text(file, dump_yaml(manifest))
    ask(["kubectl", "apply", *_in(options.namespace), f"--filename={file}"])
    jobs = BatchJobs("kubernetes", manifest["metadata"]["name"], options.jobs, version, namespace=options.namespace)
    folder.save_jobs([*folder.load_jobs(), jobs])
    return jobs


def states(folder: RunFolder, jobs: BatchJobs) -> list[tuple[str, str]]:
    """Name and state of each pod's place in the Job.

    Raises:
        EnvironmentFault: The cluster does not answer.
    """
    status = _status(jobs)
    if status is None:
        return [(f"{jobs.number}-{index}", "ENDED") for index in range(jobs.num_jobs)]
    done, failed = (_indexes(status.get(name, "")) for name in ("completedIndexes", "failedIndexes"))
    waiting = "RUNNING" if status.get("active") else "PENDING"
    if any(each.get("type") == "Failed" and each.get("status") == "True" for each in status.get("conditions", ())):
        waiting = "FAILED"
    return [
        (f"{jobs.number}-{index}", "COMPLETED" if index in done else "FAILED" if index in failed else waiting)
        for index in range(jobs.num_jobs)
    ]


def cancel(folder: RunFolder, jobs: BatchJobs) -> bool:
    """End a Job and its pods; False if it was gone already.

    Raises:
        EnvironmentFault: There is no kubectl here, or the cluster refuses.
    """
    require_program(PROGRAM)
    return bool(ask(["kubectl", "delete", "job", jobs.number, *_in(jobs.namespace), "--ignore-not-found"]))


def _status(jobs: BatchJobs) -> dict[str, Any] | None:
    """The status of a Job; None if it is gone."""
    require_program(PROGRAM)
    answer = ask(["kubectl", "get", "job", jobs.number, *_in(jobs.namespace), "--ignore-not-found", "--output=json"])
    if not answer:
        return None
    try:
        status: dict[str, Any] = json.loads(answer)["status"]
    except (ValueError, KeyError, TypeError) as error:
        raise EnvironmentFault(f"kubectl answered what is no Job: {answer[:200]!r}.") from error
    return status


def _indexes(text: str) -> set[int]:
    """`1,3-5` of a status as numbers."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def _in(namespace: str) -> list[str]:
    return [f"--namespace={namespace}"] if namespace else []


def _manifest(folder: RunFolder, options: PodOptions, *, name: str) -> dict[str, Any]:
    run = folder.root.absolute()
    mount = Path(options.mount) if options.mount else run.parent
    _check(options, run, mount)
    labels = {"app.kubernetes.io/name": "tuner", "app.kubernetes.io/instance": name}
    limits = {"cpu": str(options.cpus)}
    limits |= {"memory": options.memory} if options.memory else {}
    limits |= {"nvidia.com/gpu": str(options.gpus)} if options.gpus else {}
    # Those of a search in the foreground begin with 0.
    first = STRIDE * (1 + sum(each.num_jobs for each in folder.load_jobs()))
    container = {
        "name": "workers",
        "image": options.image,
        # The shell only adds up: the path of the run is a variable to it.
        "command": ["/bin/sh", "-c"],
        "args": [f'exec python -m tuner job --first "$(({first} + {STRIDE} * JOB_COMPLETION_INDEX))" -- "$TUNER_RUN"'],
        "env": [
            {"name": "TUNER_RUN", "value": str(run)},
            {"name": "TUNER_JOB", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *_password(options.secret),
        ],
        "resources": {"limits": limits, "requests": limits},
        "volumeMounts": [{"name": "run", "mountPath": str(mount)}],
    }
    pod = {
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [container],
        "volumes": [{"name": "run", "persistentVolumeClaim": {"claimName": options.claim}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "completionMode": "Indexed",
            "completions": options.jobs,
            "parallelism": options.jobs,
            "backoffLimit": BACKOFF_PER_POD * options.jobs,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _password(secret: str) -> list[dict[str, Any]]:
    """The variable that libpq reads; its value never leaves the cluster's secret."""
    if not secret:
        return []
    name, _, key = secret.partition(":")
    return [{"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}]


def _check(options: PodOptions, run: Path, mount: Path) -> None:
    if not options.image or not options.claim:
        raise ConfigError(
            "Pods need an image and a volume: give --image REGISTRY/tuner:TAG (docs/cluster.md has its Dockerfile) and "
            "--claim NAME of a PersistentVolumeClaim that holds the run folder."
        )
    if not options.image.isprintable() or " " in options.image:
        raise ConfigError(
            f"--image {options.image!r} is not the name of an image, such as registry.example.org/tuner:1."
        )
    for flag, value in (("claim", options.claim), ("namespace", options.namespace)):
        if value and not _LABEL.fullmatch(value):
            raise ConfigError(f"--{flag} {value!r} is not a name in Kubernetes: small letters, digits and '-'.")
    if options.memory and not _QUANTITY.fullmatch(options.memory):
        raise ConfigError(f"--memory {options.memory!r} is not an amount in Kubernetes, such as 16Gi or 500M.")
    if options.secret and not _SECRET.fullmatch(options.secret):
        raise ConfigError(f"--secret {options.secret!r} is not of the form NAME:KEY, such as tuner-database:password.")
    if not run.is_relative_to(mount) or not mount.is_absolute():
        raise ConfigError(
            f"The run folder {str(run)!r} does not lie below --mount {str(mount)!r}. Mount the volume at the same path "
            "here and in the pods."
        )
