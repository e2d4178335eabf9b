"""What the machine has for workers, and what each of them gets of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.search import machine
from tuner.search.machine import (
    WORKER_MEMORY_BYTES,
    cards_with_room,
    network_file_system,
    num_workers,
    worker_environments,
)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 8)
    monkeypatch.setattr(machine, "visible_gpus", lambda: ())
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 100 * WORKER_MEMORY_BYTES)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of the driver's program."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def put(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)

    return put


@pytest.mark.usefixtures("eight_cores")
def test_auto_is_one_worker_on_each_core_or_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_workers("auto", most=99) == 8
    monkeypatch.setattr(machine, "visible_gpus", lambda: ("0", "1"))
    assert num_workers("auto", most=99) == 2


@pytest.mark.usefixtures("eight_cores")
def test_no_more_workers_than_there_is_work_or_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (num_workers("auto", most=3), num_workers(12, most=99), num_workers(12, most=5)) == (3, 12, 5)
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 3 * WORKER_MEMORY_BYTES - 1)
    assert (num_workers("auto", most=99), num_workers(4, most=99)) == (2, 4)
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 0)
    assert num_workers("auto", most=99) == 1
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: None)
    assert num_workers("auto", most=99) == 8


@pytest.mark.usefixtures("eight_cores")
def test_several_workers_have_one_thread_each_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert worker_environments(1) == [{}]
    first, second = worker_environments(2)
    assert first == second
    assert (first["MKL_NUM_THREADS"], first["TF_NUM_INTEROP_THREADS"]) == ("1", "1")
    assert "OMP_NUM_THREADS" not in first
    assert "XLA_FLAGS" not in first
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("XLA_FLAGS", "--of_mine")
    assert worker_environments(2)[0]["XLA_FLAGS"].startswith("--of_mine --xla_cpu_multi_thread_eigen=false")


def test_workers_take_the_cards_in_turn_and_share_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "visible_gpus", lambda: ("4", "7"))
    assert worker_environments(2) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "7"}]
    third = worker_environments(3)[2]
    assert (third["CUDA_VISIBLE_DEVICES"], third["TF_FORCE_GPU_ALLOW_GROWTH"]) == ("4", "true")


def test_workers_whose_number_may_grow_share_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "visible_gpus", lambda: ("4",))
    assert worker_environments(1) == [{}]
    (only,) = worker_environments(1, may_grow=True)
    assert only == {
        "CUDA_VISIBLE_DEVICES": "4",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


@pytest.mark.parametrize(
    ("workers", "used", "expected"),
    [
        # 8000 MiB in all; another one needs room for twice what one holds.
        ({"0": 1}, 2666, ["0"]),
        ({"0": 1}, 2667, []),
        ({"0": 2}, 4000, ["0"]),
        ({"0": 2}, 4001, []),
        ({"0": 3}, 300, ["0"]),
        ({"0": 4}, 300, []),
        ({"1": 1}, 300, []),
        ({"GPU-5f": 1}, 300, ["GPU-5f"]),
        ({"GPU-6": 1}, 300, []),
        ({"MIG-5f": 1}, 300, []),
        ({"0": 1}, "[N/A]", []),
    ],
)
@pytest.mark.usefixtures("eight_cores")
def test_a_card_with_room_is_one_that_holds_twice_as_much_again(
    nvidia_smi: Callable[[str], None], workers: dict[str, int], used: object, expected: list[str]
) -> None:
    nvidia_smi(f"echo '0, GPU-5f12, {used}, 8000'")
    assert cards_with_room(workers) == expected


@pytest.mark.usefixtures("eight_cores")
def test_no_card_has_room_where_the_machine_has_none(
    nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi("echo '0, GPU-5f12, 100, 8000'")
    assert cards_with_room({"0": 1}) == ["0"]
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: WORKER_MEMORY_BYTES - 1)
    assert cards_with_room({"0": 1}) == []


@pytest.mark.parametrize(
    ("allowed", "listed", "expected"),
    [
        (None, "0\n1\n", ("0", "1")),
        (None, "No devices were found\n", ()),
        ("1", "0\n1\n", ("1",)),
        ("GPU-5f,3", "", ("GPU-5f", "3")),
        ("", "0\n", ()),
        ("-1", "0\n", ()),
        ("1,-1,0", "0\n", ("1",)),
    ],
)
def test_cards_are_found_without_tensorflow(
    nvidia_smi: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    allowed: str | None,
    listed: str,
    expected: tuple[str, ...],
) -> None:
    nvidia_smi(f"printf '{listed}'")
    if allowed is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert machine.visible_gpus() == expected
    nvidia_smi("exit 9")
    assert machine.visible_gpus() == (expected if allowed is not None else ())


def test_this_machine_has_a_core_and_some_memory() -> None:
    assert 1 <= machine.num_cores() <= (os.cpu_count() or 1)
    memory = machine.available_memory_bytes()
    assert memory is None or memory > 0


@pytest.mark.parametrize(
    ("place", "system"),
    [
        ("/data/me/run", "nfs4"),
        ("/data", "nfs4"),
        ("/database/me", ""),
        ("/data/local/run", ""),
        ("/my scratch/run", "lustre"),
        ("/my", ""),
        ("/twice/run", ""),
        ("/var/run", ""),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, place: str, system: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "overlay / overlay rw 0 0\nserver:/d /data nfs4 rw 0 0\n/dev/sda1 /data/local ext4 rw 0 0\n"
        "mds@tcp:/fs /my\\040scratch lustre rw 0 0\nserver:/t /twice nfs rw 0 0\n/dev/sdb /twice xfs rw 0 0\nbroken\n"
    )
    assert network_file_system(Path(place), mounts=mounts) == system


def test_where_nobody_tells_the_file_systems_none_is_a_network_one(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, mounts=tmp_path / "none") == ""
