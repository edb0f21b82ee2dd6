"""Who comes, when, with what, and how long it takes to read: the room's assumptions, and patients drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from triage_node.priority import Facts
from triage_node.reading_room import HOUR_S, Case
from triage_node.study import OrderPriority, StudyState

if TYPE_CHECKING:
    from reading_room.judge import Judge

DAY_S = 24 * HOUR_S
HEALTHY, OTHER, COVID = 0, 1, 2
SEVERE_FROM = 0.5  # CT-3: to hospital (Goncharov 2021, section 3.1)
# Goncharov 2021, section 3.1: images of MosMedData by CT-1 to CT-4, that is by quarters of the worse lung.
GRADES = (684, 125, 45, 2)


class Group(StrEnum):
    """Who waits."""

    SEVERE = "severe"  # COVID-19 with at least half of a lung affected
    POSITIVE = "positive"  # COVID-19, less affected
    OTHERS = "others"  # no COVID-19: healthy, or another disease


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many of a hundred studies are what."""

    covid: float = 0.33  # 33 of 101 in the hold-out set of Goncharov 2021
    other: float = 0.15
    not_analysed: float = 0.03
    stat: float = 0.0  # ordered STAT, whatever they show


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A reading room. Everything here is an assumption; `tools/simulate_reading.py --help` says how to make others."""

    studies_a_day: float = 225.0
    # of a day's studies, hour by hour from midnight
    by_hour: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 2, 4, 7, 8, 8, 8, 7, 7, 8, 8, 7, 5, 4, 3, 3, 2, 2, 1)
    readers: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1)
    reading_min: float = 8.0  # mean
    reading_spread: float = 0.5  # standard deviation over mean
    answer_s: float = 10.0  # from the last image until the study is judged, each after the other
    days: int = 7
    warm_up_days: int = 1
    shares: Shares = field(default_factory=Shares)

    def __post_init__(self) -> None:
        if len(self.by_hour) != 24 or len(self.readers) % 24 or not self.readers:
            raise ValueError("by_hour takes 24 numbers, readers 24, or 24 for each day of a week")
        if not any(self.readers) or sum(self.by_hour) <= 0:
            raise ValueError("somebody must come and somebody must read")
        shares = self.shares
        if not 0 <= shares.covid + shares.other <= 1 or not 0 <= shares.not_analysed < 1:
            raise ValueError("the shares of COVID-19 and other diseases must not exceed 1 together")

    @property
    def load(self) -> float:
        """Work that comes in a day over work that the readers do in a day."""
        return self.studies_a_day * self.reading_min / 60 / (sum(self.readers) / (len(self.readers) / 24))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patients:
    """Who came: [patients] each, in order of arrival."""

    arrived_at: np.ndarray  # seconds from the first midnight
    kinds: np.ndarray  # HEALTHY, OTHER or COVID
    fractions: np.ndarray  # true affected fraction of the worse lung
    reading_s: np.ndarray
    analysed: np.ndarray  # bool
    stat: np.ndarray  # bool

    def group(self, number: int) -> Group:
        """Who waits longer or shorter."""
        if self.kinds[number] != COVID:
            return Group.OTHERS
        return Group.SEVERE if self.fractions[number] >= SEVERE_FROM else Group.POSITIVE


def draw(room: Room, chance: np.random.Generator) -> Patients:
    """The patients of warm-up and measured days."""
    weights = np.array(room.by_hour) / sum(room.by_hour)
    times = []
    for day in range(room.warm_up_days + room.days):
        for hour, weight in enumerate(weights):
            number = chance.poisson(room.studies_a_day * weight)
            times.append(day * DAY_S + (hour + chance.random(number)) * HOUR_S)
    arrived_at = np.sort(np.concatenate(times))
    count = len(arrived_at)
    shares = room.shares
    kinds = chance.choice(3, count, p=(1 - shares.covid - shares.other, shares.other, shares.covid))
    grade = chance.choice(len(GRADES), count, p=np.array(GRADES) / sum(GRADES))
    affected = (grade + chance.random(count)) / len(GRADES)  # anywhere within its grade
    fractions = np.select([kinds == COVID, kinds == OTHER], [affected, chance.random(count) / len(GRADES)], 0.0)
    # lognormal of this mean and spread
    variance = np.log1p(room.reading_spread**2)
    reading_min = room.reading_min * np.exp(chance.normal(-variance / 2, np.sqrt(variance), count))
    return Patients(
        arrived_at=arrived_at,
        kinds=kinds,
        fractions=fractions,
        reading_s=60 * reading_min,
        analysed=chance.random(count) >= shares.not_analysed,
        stat=chance.random(count) < shares.stat,
    )


def cases(patients: Patients, room: Room, judge: Judge, chance: np.random.Generator) -> list[Case]:
    """The same patients as the node will know them: `str(number)` is the Study Instance UID of each."""
    probabilities, fractions = judge.judge(patients, room.shares, chance)
    found = []
    free_at = 0.0
    for number, at in enumerate(patients.arrived_at.tolist()):
        free_at = max(at, free_at) + room.answer_s  # one analyst, one study at a time
        analysed = bool(patients.analysed[number])
        facts = Facts(
            study_instance_uid=f"{number:06d}",
            arrived_at=at,
            state=StudyState.JUDGED if analysed else StudyState.NOT_ANALYSED,
            covid_probability=float(probabilities[number]) if analysed else None,
            affected_fraction_right=float(fractions[number]) if analysed else None,
            words="" if analysed else "not analysed in this simulation",
            order_priority=OrderPriority.STAT if patients.stat[number] else None,
        )
        found.append(Case(facts=facts, answered_at=free_at, reading_s=float(patients.reading_s[number])))
    return found
