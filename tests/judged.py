"""A judged study on the disk and in the journal of a node, as receiver and analyst leave it, without either running."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests import filed
from triage_node import filing, results
from triage_node.archive import Archive
from triage_node.journal import intake, queue

if TYPE_CHECKING:
    from tests.unit.results_cases import Case
    from triage_node.journal import Journal
    from triage_node.study import Instance

OWNER = "analyst"


def arrive(journal: Journal, instances: tuple[Instance, ...], now: float) -> None:
    """The instances arrive and their series are closed."""
    archive = Archive(journal.state_dir)
    archive.prepare()
    for instance in instances:
        header, syntax, _ = filing.read_file(instance.path)
        place = archive.place_of(header)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(instance.path, place)
        kept = intake.Kept(
            header=header,
            transfer_syntax_uid=syntax,
            path=archive.relative(place),
            digest=instance.digest,
            size_bytes=place.stat().st_size,
        )
        assert intake.add_instance(journal, kept, association_id=None, now=now)
    filed.close_all(journal, now)


def judge(journal: Journal, case: Case, now: float) -> None:
    """The study of `case`, which waits, is answered with all its objects."""
    archive = Archive(journal.state_dir)
    job = queue.claim(journal, OWNER, now)
    assert job is not None
    assert job.study_instance_uid == case.identity.study_instance_uid
    objects = []
    for kind, made in case.objects().items():
        data = results.encode(made)
        path = archive.keep_result(job.study_instance_uid, f"{job.generation:03d}-{kind}.dcm", data)
        objects.append(
            queue.FiledObject(
                kind=made.kind,
                sop_class_uid=made.sop_class_uid,
                sop_instance_uid=made.sop_instance_uid,
                path=archive.relative(path),
                size_bytes=len(data),
            )
        )
    answer = queue.Result(
        series_instance_uid=case.built.series.key.series_instance_uid,
        assessment=case.assessment,
        not_analysed=None,
        passed_over=(),
        identity=case.identity,
        objects=tuple(objects),
        duration_s=1.0,
    )
    assert queue.finish(journal, job, OWNER, answer, (), now)


def put(journal: Journal, case: Case, now: float) -> str:
    """The study of `case` arrives and is judged; its Study Instance UID."""
    arrive(journal, case.built.series.instances, now)
    judge(journal, case, now)
    return case.identity.study_instance_uid
