"""The diagnosis on real trainings: the recorded half of the zoo that nothing was tuned on (benchmarks/diagnosis.py)."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

from benchmarks.diagnosis import answer, figures, load, save
from tuner.stability.causes import CAUSES

RECORDED = Path(__file__).parents[1] / "golden" / "zoo.npz"


@pytest.fixture(scope="module")
def recordings():
    return load(RECORDED)


def test_every_cause_is_in_the_zoo_and_as_many_healthy_trainings(recordings):
    faulty = [recording for recording in recordings if recording.cause]
    assert {recording.cause for recording in faulty} == {cause.code for cause in CAUSES}
    assert len(recordings) - len(faulty) >= len(faulty)
    assert {recording.half for recording in recordings} == {"report"}
    seeds = collections.Counter(recording.name for recording in recordings)
    assert set(seeds.values()) == {2}


def test_faulty_trainings_are_flagged_healthy_ones_not_and_causes_named(recordings):
    found = figures([answer(recording) for recording in recordings])
    assert found.recall >= 0.9
    assert found.false_alarms <= 0.05
    assert found.top_1 >= 0.6
    assert found.top_2 >= 0.8


def test_recordings_survive_their_file(recordings, tmp_path):
    save(recordings[:8], tmp_path / "some.npz")
    again = load(tmp_path / "some.npz")
    assert [answer(one).causes for one in again] == [answer(one).causes for one in recordings[:8]]
