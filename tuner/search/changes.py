"""Changes of one trial in Optuna's tables, each one transaction; Optuna's own interface takes one for every value."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import TrialState

from tuner.database import patient

__all__ = ["change_trial", "report_epoch"]


def change_trial(
    storage: optuna.storages.RDBStorage,
    trial_id: int,
    *,
    params: Mapping[str, tuple[Any, BaseDistribution]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    state: TrialState | None = None,
    values: Sequence[float] = (),
) -> None:
    """Store all of this, or nothing.

    Args:
        storage: SQLite or PostgreSQL.
        trial_id: Optuna's id of the trial.
        params: Value and distribution by name of the parameter.
        attrs: User attributes.
        state: What becomes of the trial.
        values: Its objectives, with the state that ends it.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    models = _models()

    def write(upsert: _Upsert, execute: Callable[..., Any]) -> None:
        for name, (value, distribution) in (params or {}).items():
            upsert(
                models.TrialParamModel,
                {"trial_id": trial_id, "param_name": name},
                param_value=distribution.to_internal_repr(value),
                distribution_json=distribution_to_json(distribution),
            )
        for key, value in (attrs or {}).items():
            upsert(models.TrialUserAttributeModel, {"trial_id": trial_id, "key": key}, value_json=json.dumps(value))
        for objective, value in enumerate(values):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            upsert(
                models.TrialValueModel, {"trial_id": trial_id, "objective": objective}, value=stored, value_type=kind
            )
        if state is not None:
            table = models.TrialModel.__table__
            now = {"datetime_complete": datetime.now(UTC).replace(tzinfo=None)} if state.is_finished() else {}
            execute(table.update().where(table.c.trial_id == trial_id).values(state=state, **now))

    _in_transaction(storage, trial_id, write, is_synced=True)


def report_epoch(
    storage: optuna.storages.RDBStorage, trial_id: int, epoch: int, *, objective: float, loss: float
) -> None:
    """Store what an epoch was judged, and its validation loss; what was reported of later epochs does not count then.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    models = _models()
    reports = models.TrialIntermediateValueModel

    def write(upsert: _Upsert, execute: Callable[..., Any]) -> None:
        known = execute(_losses_statement(), {"id": trial_id}).scalar_one_or_none()
        # JSON, as optuna-dashboard reads it, has no infinity.
        told = loss if math.isfinite(loss) else None
        before = json.loads(known or "[]")[:epoch]
        # After a power failure, a training can be ahead of what is known of it here.
        losses = [*before, *[None] * (epoch - len(before)), told]
        upsert(
            models.TrialUserAttributeModel,
            {"trial_id": trial_id, "key": "val_losses"},
            value_json=json.dumps(losses),
        )
        stored, kind = reports.intermediate_value_to_stored_repr(objective)
        upsert(
            reports,
            {"trial_id": trial_id, "step": epoch},
            intermediate_value=stored,
            intermediate_value_type=kind,
        )
        execute(_forget_statement(), {"id": trial_id, "epoch": epoch})

    _in_transaction(storage, trial_id, write, is_synced=False)


@functools.cache
def _losses_statement() -> Any:
    import sqlalchemy

    attrs = _models().TrialUserAttributeModel.__table__
    found = sqlalchemy.select(attrs.c.value_json).where(attrs.c.key == "val_losses")
    return found.where(attrs.c.trial_id == sqlalchemy.bindparam("id"))


@functools.cache
def _forget_statement() -> Any:
    """Have no value for the epochs after one."""
    import sqlalchemy

    reports = _models().TrialIntermediateValueModel
    value, kind = reports.intermediate_value_to_stored_repr(math.nan)
    table = reports.__table__
    later = (table.c.trial_id == sqlalchemy.bindparam("id"), table.c.step > sqlalchemy.bindparam("epoch"))
    return table.update().where(*later).values(intermediate_value=value, intermediate_value_type=kind)


# (table, what identifies the row, its other columns)
_Upsert = Callable[..., None]


@functools.cache
def _upsert_statement(model: Any, key: tuple[str, ...], columns: tuple[str, ...], *, is_file: bool) -> Any:
    """Insert a row, or change the one that is there. Built once: that takes longer than to run it."""
    from sqlalchemy.dialects import postgresql, sqlite

    statement: Any = (sqlite.insert if is_file else postgresql.insert)(model.__table__)
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: statement.excluded[name] for name in columns}
    )


@functools.cache
def _found_statement() -> Any:
    """Number and state of a trial, which nobody else may change meanwhile."""
    import sqlalchemy

    trials = _models().TrialModel.__table__
    found = sqlalchemy.select(trials.c.number, trials.c.state)
    return found.where(trials.c.trial_id == sqlalchemy.bindparam("id")).with_for_update()


def _in_transaction(
    storage: optuna.storages.RDBStorage,
    trial_id: int,
    write: Callable[[_Upsert, Callable[..., Any]], None],
    *,
    is_synced: bool,
) -> None:
    """Have a trial changed that has not ended, by nobody else meanwhile; tried again when the connection was lost.

    Args:
        is_synced: Whether a file is synced at once, so that a power failure cannot take it back; else with the next
            change that is. A process that dies takes nothing back.
    """
    is_file = storage.engine.name == "sqlite"

    def once() -> None:
        with storage.engine.begin() as connection:
            if is_file:
                is_logged = connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                level = "NORMAL" if is_logged and not is_synced else "FULL"
                connection.exec_driver_sql(f"PRAGMA synchronous={level}")
                # A transaction that begins by reading could not wait for another one's write.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            number, state = connection.execute(_found_statement(), {"id": trial_id}).one()
            if state.is_finished():
                raise optuna.exceptions.UpdateFinishedTrialError(f"Trial {number} has already ended.")

            def upsert(model: Any, key: Mapping[str, Any], **columns: Any) -> None:
                statement = _upsert_statement(model, (*key,), (*columns,), is_file=is_file)
                connection.execute(statement, {**key, **columns})

            write(upsert, connection.execute)

    patient(once)()


def _models() -> Any:
    from optuna.storages._rdb import models

    return models
