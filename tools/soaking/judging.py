"""Judges from outside, when all is settled: the node's ledger against the archives' registers and the result files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from soaking import register

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from soaking.arrangement import Destination
    from soaking.register import Account

# What an archive says for good (PS3.4 table B.2-1): after this, and nothing else, an object may be a dead letter.
FINAL = (0xC000,)
KINDS = frozenset({"lungs", "overview", "report"})  # what every judged study has; "lesions" where there are some


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object at one destination, as `triage-node study UID --json` shows it."""

    study_instance_uid: str
    sop_instance_uid: str
    kind: str
    path: str
    generation: int
    current: bool
    destination: str | None
    state: str | None
    awaiting: tuple[str, ...]
    resends: int
    unanswered: int  # C-STOREs to which no final answer came
    words: str

    def __str__(self) -> str:
        return f"{self.kind} {self.sop_instance_uid} of study {self.study_instance_uid} at {self.destination}"


def entries(report: Mapping[str, Any]) -> list[Entry]:
    """The ledger of a study's report."""
    return [
        Entry(
            study_instance_uid=report["study_instance_uid"],
            sop_instance_uid=one["sop_instance_uid"],
            kind=one["kind"],
            path=one["path"],
            generation=one["generation"],
            current=one["current"],
            destination=one["destination"],
            state=one["state"],
            awaiting=tuple(one["awaiting"]),
            resends=one["resends"],
            unanswered=sum(attempt["state"] == "failed" for attempt in one["deliveries"]),
            words=one["words"] or "",
        )
        for one in report["objects"]
    ]


def digest_of_file(path: Path) -> str:
    """Sha256 of the data set of a Part 10 file (PS3.10 section 7.1: the group length says where it begins)."""
    raw = path.read_bytes()
    return register.digest_of(raw[144 + int.from_bytes(raw[140:144], "little") :])


def dead_letter(letter: Mapping[str, Any], accounts: Mapping[str, Account]) -> str | None:
    """Why an object must not be a dead letter, or None: its archive's last word was a refusal for good."""
    account = accounts.get(letter["sop_instance_uid"])
    last = account.arrivals[-1].status if account is not None and account.arrivals else None
    if letter["state"] == "refused" and last in FINAL:
        return None
    said = "nothing" if last is None else f"0x{last:04X}"
    return (
        f"{letter['kind']} {letter['sop_instance_uid']} is a dead letter at {letter['destination']} ({letter['state']}:"
        f" {letter['words']}), but the archive's last word on it was {said}, which is not final"
    )


def judge(
    studies: Mapping[str, Mapping[str, Any]],
    destinations: Sequence[Destination],
    accounts: Mapping[str, Mapping[str, Account]],
    state_dir: Path,
    *,
    killed: bool,
) -> list[str]:
    """A sentence for everything that is wrong; none: all is delivered and confirmed exactly once.

    `studies` are the reports of the node by Study Instance UID, `accounts` what each destination's register says.
    """
    ledger = [entry for report in studies.values() for entry in entries(report)]
    return [
        *_answers(studies, ledger, destinations),
        *(words for entry in ledger if entry.current for words in _delivered(entry, destinations, accounts, state_dir)),
        *_contents(ledger, accounts),
        *([] if killed else _once(ledger, destinations, accounts)),
    ]


def _answers(
    studies: Mapping[str, Mapping[str, Any]], ledger: Iterable[Entry], destinations: Sequence[Destination]
) -> Iterable[str]:
    """Every study has an answer, and all of it is meant for every destination."""
    kinds: dict[tuple[str, str | None], Counter[str]] = {}
    for entry in ledger:
        if entry.current:
            kinds.setdefault((entry.study_instance_uid, entry.destination), Counter())[entry.kind] += 1
    for uid, report in studies.items():
        if report["state"] != "judged":
            yield f"study {uid} is {report['state']}, not judged"
            continue
        for one in destinations:
            there = kinds.get((uid, one.name), Counter())
            for kind in sorted(KINDS - set(there)):
                yield f"the answer to study {uid} has no {kind} for {one.name}"
            for kind in sorted(kind for kind, number in there.items() if number > 1):
                yield f"the answer to study {uid} has {there[kind]} objects {kind} for {one.name}"


def _delivered(
    entry: Entry,
    destinations: Sequence[Destination],
    accounts: Mapping[str, Mapping[str, Account]],
    state_dir: Path,
) -> Iterable[str]:
    """A current object is proven in the ledger, and what the ledger says is true."""
    destination = next((one for one in destinations if one.name == entry.destination), None)
    if destination is None:
        yield f"{entry} is meant for nobody"
        return
    good = {"confirmed"} if destination.read_back else {"committed", "confirmed"}
    if entry.state not in good or entry.awaiting:
        outstanding = f", awaiting {' and '.join(entry.awaiting)}" if entry.awaiting else ""
        yield f"{entry} is {entry.state}{outstanding}, not {' or '.join(sorted(good))} (last words: {entry.words})"
    account = accounts[destination.name].get(entry.sop_instance_uid)
    if account is None or account.holds is None:
        yield f"{entry} is {entry.state} in the ledger, but the archive does not have it"
        return
    if account.holds != digest_of_file(state_dir / entry.path):
        yield f"{entry} lies in the archive with another content than the node's"
    if destination.commitment and account.committed_at is None:
        yield f"{entry} is {entry.state} in the ledger, but the archive never committed itself to it"


def _contents(ledger: Iterable[Entry], accounts: Mapping[str, Mapping[str, Account]]) -> Iterable[str]:
    """One SOP Instance UID, one content, at all archives and at all times; and nothing that nobody knows of."""
    ours = {entry.sop_instance_uid for entry in ledger}
    contents: dict[str, set[str]] = {}
    for name, held in accounts.items():
        for uid, account in held.items():
            contents.setdefault(uid, set()).update(account.digests)
            if uid not in ours:
                yield f"{name} was sent {uid}, which is in no study's ledger"
    for uid, digests in contents.items():
        if len(digests) > 1:
            yield f"{uid} was sent with {len(digests)} different contents"


def _once(
    ledger: Iterable[Entry],
    destinations: Sequence[Destination],
    accounts: Mapping[str, Mapping[str, Account]],
) -> Iterable[str]:
    """Who does its duty is sent each object once, and again only where the ledger has an attempt without an answer.

    A node that was killed may send again without one: it cannot know.
    """
    honest = {one.name for one in destinations if one.scale == 0}
    for entry in ledger:
        if entry.destination in honest:
            account = accounts[entry.destination].get(entry.sop_instance_uid)
            if account is not None and len(account.arrivals) > 1 + entry.unanswered:
                yield f"{entry} was sent {len(account.arrivals)} times to an archive that took it at once"
            if entry.resends:
                yield f"{entry} was taken for lost by the node, and was not"
