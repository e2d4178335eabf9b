"""The Job of Kubernetes: its manifest against the official schema, kubectl faked, and what no cluster would take."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ruamel.yaml

from tuner import __version__
from tuner.config import SearchConfig
from tuner.errors import ConfigError, EnvironmentFault
from tuner.records import BatchJobs
from tuner.search.batch import cancel_jobs, job_options, job_states, render, submit
from tuner.search.kubernetes import PodOptions
from tuner.search.slurm import JobOptions
from tuner.store import RunFolder

PODS = PodOptions("registry.example.org/tuner:0.1.0", "runs", secret="tuner-database:password", memory="16Gi", gpus=1)
# Oldest and newest that the package knows of those which Kubernetes still supports.
VERSIONS = ("1.34", "1.37")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", SearchConfig())


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH with a kubectl that notes its arguments and runs what a test says."""
    place = tmp_path / "programs"
    place.mkdir()
    program = place / "kubectl"
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{place}/arguments'\n[ -f '{place}/does' ] && . '{place}/does'\nexit 0\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place


def read(text: str) -> dict[str, Any]:
    manifest: dict[str, Any] = ruamel.yaml.YAML(typ="safe", pure=True).load(io.StringIO(text))
    return manifest


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", [PODS, PodOptions("tuner", "runs", jobs=1), replace(PODS, gpus=0, memory="500M")])
def test_the_manifest_keeps_the_official_schema(folder: RunFolder, options: PodOptions, version: str) -> None:
    manifest = read(render(folder, options))
    kubernetes_validate.validate(manifest, version, strict=True)
    manifest["spec"]["template"]["spec"]["contianers"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_pods_get_their_share_their_numbers_and_the_password_by_reference(folder: RunFolder) -> None:
    folder.save_jobs([BatchJobs("slurm", "1", 3, __version__)])
    manifest = read(render(folder, replace(PODS, jobs=8, cpus=6)))
    spec = manifest["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 8, 8)
    pod = container(manifest)
    assert pod["resources"]["limits"] == {"cpu": "6", "memory": "16Gi", "nvidia.com/gpu": "1"}
    # Jobs of before, and a search in the foreground, have the numbers below.
    assert "$((400 + 100 * JOB_COMPLETION_INDEX))" in pod["args"][0]
    password = next(each for each in pod["env"] if each["name"] == "PGPASSWORD")
    assert password["valueFrom"] == {"secretKeyRef": {"name": "tuner-database", "key": "password"}}
    assert pod["volumeMounts"] == [{"name": "run", "mountPath": str(folder.root.parent)}]


@pytest.mark.parametrize("name", ["my run", "it's", 'a "quoted" one', "$(touch x)", "ünï: {x}"])
def test_a_run_of_any_name_reaches_the_program_as_it_is(tmp_path: Path, name: str) -> None:
    folder = RunFolder.create(tmp_path / name, SearchConfig())
    pod = container(read(render(folder, PODS)))
    assert {"name": "TUNER_RUN", "value": str(folder.root)} in pod["env"]
    assert name not in pod["args"][0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image": ""}, "need an image and a volume"),
        ({"claim": ""}, "need an image and a volume"),
        ({"image": "a b"}, "is not the name of an image"),
        ({"claim": "My_Claim"}, "--claim 'My_Claim' is not a name in Kubernetes"),
        ({"namespace": "-x"}, "--namespace '-x' is not a name in Kubernetes"),
        ({"memory": "16 GB"}, "--memory '16 GB' is not an amount in Kubernetes, such as 16Gi"),
        ({"secret": "only-a-name"}, "--secret 'only-a-name' is not of the form NAME:KEY"),
        ({"mount": "/elsewhere"}, "does not lie below --mount '/elsewhere'"),
    ],
)
def test_what_no_cluster_would_take_is_refused(folder: RunFolder, changes: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        render(folder, replace(PODS, **changes))  # type: ignore[arg-type]


def test_options_of_the_other_scheduler_are_refused() -> None:
    assert job_options("slurm", {"partition": "gpu"}) == JobOptions(partition="gpu")
    assert job_options("kubernetes", {"image": "i", "claim": "c", "jobs": 3}) == PodOptions("i", "c", jobs=3)
    with pytest.raises(ConfigError, match="--partition means nothing to --backend kubernetes"):
        job_options("kubernetes", {"partition": "gpu"})
    with pytest.raises(ConfigError, match="--job-time means nothing to --backend kubernetes"):
        job_options("kubernetes", {"time": "1"})
    with pytest.raises(ConfigError, match="--image means nothing to --backend slurm"):
        job_options("slurm", {"image": "i"})


def test_a_job_is_applied_shown_and_cancelled(folder: RunFolder, kubectl: Path) -> None:
    jobs = submit(folder, replace(PODS, jobs=4, namespace="lab"), version=__version__)
    assert folder.load_jobs() == [jobs]
    assert re.fullmatch(r"tuner-[0-9a-f]{8}", jobs.number)
    file = folder.root / "job.yaml"
    assert read(file.read_text())["metadata"]["name"] == jobs.number
    assert f"apply --namespace=lab --filename={file}" in (kubectl / "arguments").read_text()

    status = {"status": {"active": 1, "completedIndexes": "0,2-3", "succeeded": 3}}
    (kubectl / "does").write_text(f"echo '{json.dumps(status)}'")
    name = jobs.number
    assert job_states(folder) == [
        (f"{name}-0", "COMPLETED"),
        (f"{name}-1", "RUNNING"),
        (f"{name}-2", "COMPLETED"),
        (f"{name}-3", "COMPLETED"),
    ]
    (kubectl / "does").write_text(f"echo 'job.batch \"{name}\" deleted'")
    assert cancel_jobs(folder) == [name]
    assert (kubectl / "arguments").read_text().splitlines()[-1].startswith(f"delete job {name} --namespace=lab")
    (kubectl / "does").write_text("")
    assert cancel_jobs(folder) == []
    assert {state for _, state in job_states(folder)} == {"ENDED"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, "PENDING"),
        ({"active": 2}, "RUNNING"),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, "FAILED"),
        ({"failedIndexes": "0,1"}, "FAILED"),
    ],
)
def test_states_of_pods(folder: RunFolder, kubectl: Path, status: dict[str, Any], expected: str) -> None:
    folder.save_jobs([BatchJobs("kubernetes", "tuner-x", 2, __version__)])
    (kubectl / "does").write_text(f"echo '{json.dumps({'status': status})}'")
    assert job_states(folder) == [("tuner-x-0", expected), ("tuner-x-1", expected)]


def test_faults_of_the_cluster_are_told(folder: RunFolder, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kubectl / "does").write_text("echo 'error: no matches for kind Job' >&2; exit 1")
    with pytest.raises(EnvironmentFault, match="The scheduler refused: error: no matches for kind Job"):
        submit(folder, PODS, version=__version__)
    assert folder.load_jobs() == []
    folder.save_jobs([BatchJobs("kubernetes", "tuner-x", 1, __version__)])
    (kubectl / "does").write_text("echo what")
    with pytest.raises(EnvironmentFault, match="kubectl answered what is no Job: 'what'"):
        job_states(folder)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentFault, match=r"'kubectl' is not on PATH"):
        submit(folder, PODS, version=__version__)
