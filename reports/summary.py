"""The summary of a run in sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from reports.formats import MISSING, compact, duration, fixed, number, percent
from reports.standings import Band, band, largest_part, metric_spread, metric_value, shown_run
from tuner.config import SearchConfig
from tuner.grammar import counted
from tuner.records import DatasetRecord, Outcome, StabilityMargin, TrialRecord
from tuner.stability.margin import SMALL_MARGIN
from tuner.stability.ranking import STABLE
from tuner.tasks import METRIC_TITLES

__all__ = [
    "best_sentences",
    "elapsed",
    "metric_text",
    "outcome_sentence",
    "outcome_words",
    "progress_sentence",
    "stability_meaning",
    "verdict",
]

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"

_OUTCOME_WORDS = {
    Outcome.COMPLETED: "trained to the end",
    Outcome.NOT_LEARNING: "did not learn",
    Outcome.PRUNED: "pruned",
    Outcome.DIVERGED: "diverged",
    Outcome.ERROR: "ended with an error",
    Outcome.CRASHED: "crashed",
    Outcome.INFEASIBLE: "ran out of memory",
    Outcome.RUNNING: "training now",
    Outcome.WAITING: "waiting",
}

# Instability below which nothing is worth a sentence, in nats: half a per cent. Source: convention.
_NOTHING_NATS = 0.005


def progress_sentence(trials: Sequence[TrialRecord], config: SearchConfig, ending: str = "") -> str:
    """Where a search stands that has not finished all its trials; empty for one that has, or that is at its end."""
    if ending:
        return ""
    num_done = sum(trial.outcome not in (Outcome.RUNNING, Outcome.WAITING) for trial in trials)
    if num_done >= config.trials:
        return ""
    running = [trial for trial in trials if trial.outcome is Outcome.RUNNING]
    now = [f"trial {trial.number} has reached epoch {len(trial.epoch_losses)} of {config.epochs}" for trial in running]
    state = f"{num_done} of {counted(config.trials, 'trials')} have finished"
    return ("; ".join([state, *now]) + ".").replace("1 of 1 trial have", "1 of 1 trial has")


def outcome_sentence(trials: Sequence[TrialRecord]) -> str:
    """How many trials ended how."""
    counts = Counter(trial.outcome for trial in trials)
    parts = [f"{counts[outcome]} {_OUTCOME_WORDS[outcome]}" for outcome in Outcome if counts[outcome]]
    return f"Of {counted(len(trials), 'trials')}: {', '.join(parts)}." if parts else ""


def metric_text(trial: TrialRecord, dataset: DatasetRecord) -> str:
    """The metric with its uncertainty, such as `0.971 +- 0.010`, to its first digit, or second after a 1 or 2."""
    value, spread = metric_value(trial, dataset), metric_spread(trial, dataset)
    if value is None or spread is None or not math.isfinite(value) or not math.isfinite(spread[0]):
        return number(value)
    if spread[0] == 0:
        # Several seeds may end alike; of one, it is no share that could vary.
        return f"{number(value)} {PLUS_MINUS} 0" if trial.is_confirmed else number(value)
    power = math.floor(math.log10(spread[0]))
    decimals = max(0, -power if spread[0] >= 3 * 10.0**power else 1 - power)
    return f"{value:.{decimals}f} {PLUS_MINUS} {spread[0]:.{decimals}f}"


def confirmation_sentence(trial: TrialRecord) -> str:
    """Whether the trial held on fresh seeds."""
    if not trial.is_confirmed:
        return "It is not confirmed on fresh seeds: another seed may train less well."
    failed = sum(run.outcome.is_failed for run in trial.fresh_runs)
    outcome = f"{failed} of them failed" if failed else "none of them failed"
    splits = sum(run.split_seed is not None for run in trial.fresh_runs)
    told = f" ({splits} of them with a split of training and validation part of their own)" if splits else ""
    return f"It is confirmed on {len(trial.fresh_runs)} fresh seeds{told} that the search did not choose by; {outcome}."


def margin_sentence(margin: StabilityMargin) -> str:
    """How far the configuration is from the edge, and what a small distance means."""
    told = f"Its stability margin is {margin.text}: "
    if margin.sweep.is_bound:
        told += "a sweep of the learning rate could not break it on every seed."
    else:
        told += f"a sweep of the learning rate broke it at {compact(margin.sweep.diverging_rate)}."
    if margin.ratio >= SMALL_MARGIN:
        return told
    return f"{told} That is small (below x{SMALL_MARGIN:g}): another seed may fail; prefer a lower learning rate."


def stability_meaning(trial: TrialRecord) -> str:
    """What the stability of a trial means, in a sentence."""
    run, standing = shown_run(trial), band(trial)
    if run is None or standing is Band.FAILED:
        return "No usable model came out of it."
    if standing is Band.PRUNED:
        return "It was pruned: its stability is that of its first epochs only."
    if standing is Band.NOT_LEARNING:
        return "Its loss stayed at chance level."
    if standing is Band.NOT_ASSESSED:
        reasons = "; ".join(run.score.not_assessed) or "no part was assessed"
        return f"The training was too short to judge its stability ({reasons})."
    part = largest_part(run.score)
    if part is None or run.score.instability < _NOTHING_NATS:
        return "The loss never rose above its own best by more than its noise."
    rise = percent(math.expm1(run.score.instability))
    largest = f"the largest part is the {part.name} ({part.meaning})"
    return f"That is as if the loss had been {rise} above its own best all along; {largest}."


def best_sentences(ranked: Sequence[TrialRecord], dataset: DatasetRecord) -> list[str]:
    """The best configuration in words; nothing if there is none."""
    if not ranked or band(ranked[0]) in (Band.FAILED, Band.PRUNED):
        return []
    best = ranked[0]
    name = METRIC_TITLES[dataset.metric]
    which = (
        "The only finished configuration" if len(ranked) == 1 else f"The best of {len(ranked)} finished configurations"
    )
    spread = metric_spread(best, dataset)
    text = metric_text(best, dataset)
    source = f" ({spread[1]})" if spread and PLUS_MINUS in text else ""
    sentences = [f"{which} is trial {best.number}: {name} {text}{source}; {_chance(best, dataset)}"]
    if band(best) in (Band.NOT_LEARNING, Band.NOT_ASSESSED):
        sentences.append(stability_meaning(best))
    else:
        sentences.append(f"Its stability is {fixed(best.stability)} of 1. {stability_meaning(best)}")
    run = shown_run(best)
    if run is not None and run.score.not_assessed and band(best) is not Band.NOT_ASSESSED:
        sentences.append(f"Not assessed: {'; '.join(run.score.not_assessed)}.")
    sentences.append(confirmation_sentence(best))
    if best.margin:
        sentences.append(margin_sentence(best.margin))
    return sentences


def verdict(ranked: Sequence[TrialRecord]) -> tuple[bool, str]:
    """Whether the search found what it is for, and a sentence that says so or what to do."""
    if not ranked:
        return False, "No trial has finished yet, so there is nothing to judge."
    if band(ranked[0]) is Band.FAILED:
        causes = Counter(trial.outcome for trial in ranked)
        worst = causes.most_common(1)[0][0]
        meaning = worst.meaning if worst.is_failed else Outcome.ERROR.meaning
        return False, f"Every finished trial failed. The most frequent way: {_OUTCOME_WORDS[worst]}. {meaning}"
    bands = [band(trial) for trial in ranked]
    num_stable = sum(standing.is_stable for standing in bands)
    if not num_stable and all(standing in (Band.NOT_ASSESSED, Band.PRUNED, Band.FAILED) for standing in bands):
        return False, "Stability could not be judged: the trainings were too short. Search with more --epochs."
    if not num_stable:
        return False, (
            f"No configuration reached a stability of {STABLE}. Take the best one as a starting point only: "
            "search again with a lower upper bound of the learning rate, with gradient clipping, or with more trials."
        )
    share = f"{num_stable} of {counted(len(ranked), 'finished configurations')} reached a stability of {STABLE}"
    if bands[0].is_stable:
        return True, f"{share}; the best is one of them."
    other = next(trial for trial in ranked if band(trial).is_stable)
    return False, f"{share}, but the best one did not. The best stable one is trial {other.number}."


def outcome_words(trial: TrialRecord, config: SearchConfig) -> str:
    """How a finished trial ended, in words, with the epochs if it ended early."""
    run = shown_run(trial)
    words = ("baseline, " if trial.is_baseline else "") + _OUTCOME_WORDS[trial.outcome]
    if trial.kept_epochs is not None:
        return f"over-fitted; kept at epoch {trial.kept_epochs} of {config.epochs}"
    is_early = run is not None and 0 < run.epochs < config.epochs
    return f"{words} (epoch {run.epochs} of {config.epochs})" if run and is_early else words


def elapsed(trials: Sequence[TrialRecord]) -> str:
    """Sum of the training times of all seed runs."""
    seconds = sum(run.seconds for trial in trials for run in trial.seed_runs)
    return duration(seconds) if seconds else MISSING


def _chance(best: TrialRecord, dataset: DatasetRecord) -> str:
    if dataset.metric == "loss":
        return f"always answering with the mean would have {compact(dataset.chance_error)}."
    return f"the best constant answer would have {compact(1 - dataset.chance_error)}."
