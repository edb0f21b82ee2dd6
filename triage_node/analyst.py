"""Claims one job at a time and walks the straight line: series -> volume -> findings -> assessment -> objects.

`walk` is that line without any journal, so that `triage-node analyze` judges a folder in exactly the same way.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from triage_node import inference, logbook, operating, results, selection, severity, volume
from triage_node.archive import Archive
from triage_node.errors import ConfigurationError, OutOfResources, Refused
from triage_node.identity import ResultIdentity
from triage_node.journal import Journal, intake, queue, succession
from triage_node.study import NotAnalysed, PassedOver, Reason, digest_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from triage_node.config import Settings
    from triage_node.doorbell import Doorbell
    from triage_node.inference import Method
    from triage_node.results import ResultObject
    from triage_node.study import Assessment, Model, Series, SeriesKey, Study

POLL_S = 1.0
NO_ROOM_PAUSE_S = 5.0
MISCONFIGURED = 2
OWNER = "analyst-0"  # one analyst a device; what a dead one held is found under its name

Progress = Callable[[str, float], None]  # what is being done, and how much of it is done, 0..1


class Stopped(Exception):
    """The node is stopping: the job under way goes back into the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """The answer for one study: judged or not, the objects that say so, and why other series were passed over."""

    series: Series | None
    assessment: Assessment | None
    not_analysed: NotAnalysed | None
    passed_over: tuple[PassedOver, ...]
    identity: ResultIdentity
    objects: tuple[ResultObject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Of which answer to a study this is: from it, the series and the model follow all UIDs."""

    generation: int
    created_at: datetime
    predecessor: ResultIdentity | None = None


def walk(study: Study, method: Method, settings: Settings, occasion: Occasion, progress: Progress) -> Walked:
    """Judge one study: the first candidate series that has lungs gives the answer."""
    progress("reading headers", 0.0)
    choice = selection.choose([volume.facts_of(series) for series in study.series], settings.analysis)
    by_key = {series.key: series for series in study.series}
    refused: dict[SeriesKey, NotAnalysed] = {}
    for candidate in choice.candidates:
        series = by_key[candidate.key]
        try:
            identity, assessment, objects = _judge(series, study, method, settings, occasion, progress)
        except Refused as refusal:
            refused[candidate.key] = refusal.not_analysed
            continue
        return Walked(
            series=series,
            assessment=assessment,
            not_analysed=None,
            passed_over=_passed_over(choice.others(candidate.key, refused)),
            identity=identity,
            objects=objects,
        )
    why, every = choice.no_suitable(refused)
    # A study of one series has that series' reason, not "none of its series".
    return refuse(
        study, method, settings, occasion, every[0].not_analysed if len(every) == 1 else why, _passed_over(every)
    )


def _judge(
    series: Series, study: Study, method: Method, settings: Settings, occasion: Occasion, progress: Progress
) -> tuple[ResultIdentity, Assessment, tuple[ResultObject, ...]]:
    progress("reading pixels", 0.1)
    ct = volume.read(
        series, settings.analysis, progress=lambda done, slices: progress("reading pixels", 0.1 + 0.2 * done / slices)
    )
    progress("finding lungs and lesions", 0.3)
    findings = method(ct, progress)
    assessment = severity.assess(
        ct, findings, generation=occasion.generation, settings=settings.analysis, rules=settings.worklist
    )
    progress("writing results", 0.8)
    identity = _identity(study.study_instance_uid, series.digest, method, settings, occasion)
    objects = results.judged(
        ct,
        findings,
        assessment,
        identity,
        language=settings.results.language,
        label_maps=any(destination.segmentations != "binary" for destination in settings.destinations),
    )
    return identity, assessment, objects


def refuse(
    study: Study,
    method: Method,
    settings: Settings,
    occasion: Occasion,
    not_analysed: NotAnalysed,
    passed_over: tuple[PassedOver, ...],
) -> Walked:
    """The answer for a study that cannot be judged: a report that says so."""
    identity = _identity(study.study_instance_uid, study.digest, method, settings, occasion)
    instances = [instance for series in study.series for instance in series.instances]
    return Walked(
        series=None,
        assessment=None,
        not_analysed=not_analysed,
        passed_over=passed_over,
        identity=identity,
        objects=results.not_analysed(
            instances, not_analysed, passed_over, method.model, identity, language=settings.results.language
        ),
    )


def _identity(
    study_instance_uid: str, series_digest: str, method: Method, settings: Settings, occasion: Occasion
) -> ResultIdentity:
    return ResultIdentity(
        study_instance_uid=study_instance_uid,
        series_digest=series_digest,
        model_digest=judge_digest(method.model, settings),
        generation=occasion.generation,
        created_at=occasion.created_at,
        ae_title=settings.node.ae_title,
        predecessor=occasion.predecessor,
    )


def judge_digest(model: Model, settings: Settings) -> str:
    """Sha256 over all that makes an answer of the same images: another digest, other objects.

    How lesions are split and graded, every word of the model in a report, and its language are part of what judged.
    """
    point = operating.resolved(model.operating_point, analysis=settings.analysis, worklist=settings.worklist)
    return digest_of(
        [
            ("model", json.dumps(asdict(model), sort_keys=True)),
            ("analysis", settings.analysis.model_dump_json()),
            ("operating point", json.dumps(asdict(point), sort_keys=True)),
            ("results", settings.results.model_dump_json()),
        ]
    )


def _passed_over(entries: Iterable[selection.PassedOver]) -> tuple[PassedOver, ...]:
    return tuple(
        PassedOver(
            series_instance_uid=entry.facts.key.series_instance_uid,
            description=entry.facts.description,
            not_analysed=entry.not_analysed,
        )
        for entry in entries
    )


class Analyst:
    """Works on the queue of one state directory."""

    def __init__(
        self, settings: Settings, journal: Journal, *, ring_desk: Callable[[], None], stop: threading.Event
    ) -> None:
        """Load the method; `ring_desk` tells the desk that results are there.

        Raises ConfigurationError where a configured threshold contradicts the model's card.
        """
        self._settings = settings
        self._journal = journal
        self._archive = Archive(settings.state_dir)
        self._ring_desk = ring_desk
        self._stop = stop
        self._log = logbook.get()
        self._method = inference.load(settings.analysis)
        operating.check(self._method.model, worklist=settings.worklist)
        succession.note_judge(journal, judge_digest(self._method.model, settings), time.time())

    def work(self) -> bool:
        """Do one job; False when there is none."""
        job = queue.claim(self._journal, OWNER, time.time())
        if job is None:
            return False
        with structlog.contextvars.bound_contextvars(study=job.study_instance_uid):
            try:
                self._do(job)
            except Stopped:
                queue.hand_back(self._journal, OWNER, fault=False)
                self._log.info("job handed back")
            except (OutOfResources, sqlite3.OperationalError):  # no room: not the study's fault
                self._log.exception("analysis waits for room")
                queue.hand_back(self._journal, OWNER, fault=False)
                self._stop.wait(NO_ROOM_PAUSE_S)
            except Exception:  # noqa: BLE001  # the border of the job runner: this study fails, the next one is done
                self._log.exception("analysis failed", attempt=job.attempts, of=self._settings.analysis.attempts)
                queue.hand_back(self._journal, OWNER, fault=True)
                self._stop.wait(POLL_S)
        return True

    def _do(self, job: queue.Job) -> None:
        started = time.monotonic()
        study = self._study(job)
        occasion = Occasion(
            generation=job.generation,
            created_at=datetime.fromtimestamp(int(job.created_at), UTC),
            predecessor=succession.predecessor(self._journal, job, time.time()),
        )
        self._log.info("analysis started", generation=job.generation, series=len(study.series), attempt=job.attempts)
        if job.attempts > self._settings.analysis.attempts:
            walked = self._give_up(study, occasion, _given_up(job.attempts - 1))
        else:
            walked = walk(study, self._method, self._settings, occasion, self._progress)
        duration_s = time.monotonic() - started
        result = queue.Result(
            series_instance_uid=None if walked.series is None else walked.series.key.series_instance_uid,
            assessment=walked.assessment,
            not_analysed=walked.not_analysed,
            passed_over=walked.passed_over,
            identity=walked.identity,
            objects=tuple(self._file(job, filed) for filed in walked.objects),
            duration_s=duration_s,
        )
        settings = self._settings
        systems = tuple(system.name for system in settings.hl7)
        if queue.finish(self._journal, job, OWNER, result, settings.destinations, time.time(), systems=systems):
            self._ring_desk()
            self._tell(walked, duration_s)

    def _give_up(self, study: Study, occasion: Occasion, why: NotAnalysed) -> Walked:
        try:
            return refuse(study, self._method, self._settings, occasion, why, ())
        except Exception:  # noqa: BLE001  # even the report cannot be made: the list says so, and the queue goes on
            self._log.exception("no report can be made")
            identity = _identity(study.study_instance_uid, study.digest, self._method, self._settings, occasion)
            return Walked(series=None, assessment=None, not_analysed=why, passed_over=(), identity=identity, objects=())

    def _study(self, job: queue.Job) -> Study:
        return intake.study(
            self._journal,
            job.study_instance_uid,
            last_instance_id=job.last_instance_id,
            state_dir=self._settings.state_dir,
        )

    def _progress(self, what: str, fraction: float) -> None:
        if self._stop.is_set():
            raise Stopped
        self._log.debug(what, done=round(fraction, 2))

    def _file(self, job: queue.Job, made: ResultObject) -> queue.FiledObject:
        data = made.data
        path = self._archive.keep_result(
            job.study_instance_uid, f"{job.generation:03d}-{made.kind}-{made.sop_instance_uid}.dcm", data
        )
        return queue.FiledObject(
            kind=made.kind,
            sop_class_uid=made.sop_class_uid,
            sop_instance_uid=made.sop_instance_uid,
            path=self._archive.relative(path),
            size_bytes=len(data),
        )

    def _tell(self, walked: Walked, duration_s: float) -> None:
        seconds = round(duration_s, 2)
        if walked.assessment is not None:
            self._log.info(
                "study judged",
                affected_fraction=round(walked.assessment.affected_fraction, 3),
                grade=walked.assessment.ct_grade,
                objects=len(walked.objects),
                seconds=seconds,
            )
        elif walked.not_analysed is not None:
            self._log.info(
                "study not analysed", reason=walked.not_analysed.reason, why=walked.not_analysed.words, seconds=seconds
            )


def _given_up(attempts: int) -> NotAnalysed:
    return NotAnalysed(
        reason=Reason.ANALYSIS_FAILED,
        words=f"the analysis failed or was cut off {attempts} times; the log of the node has the details",
    )


def run(settings: Settings, bell: Doorbell, *, ring_desk: Callable[[], None], stop: threading.Event) -> int:
    """The analyst process; returns the exit status."""
    log = logbook.get()
    journal = Journal(settings.state_dir, "analyst")
    returned = queue.hand_back(journal, OWNER, fault=True)
    if returned:
        log.warning("job of a dead analyst queued again", jobs=returned)
    try:
        analyst = Analyst(settings, journal, ring_desk=ring_desk, stop=stop)
    except ConfigurationError as error:
        log.error("the configuration cannot be used", why=str(error))  # noqa: TRY400  the sentence says all
        journal.close()
        return MISCONFIGURED
    gc.freeze()  # libraries and networks stay: to look through them for garbage takes a tenth of a second each time
    log.info("ready", method=settings.analysis.method)
    while not stop.is_set():
        if not analyst.work():
            bell.wait(POLL_S)
    journal.close()
    log.info("stopped")
    return 0
