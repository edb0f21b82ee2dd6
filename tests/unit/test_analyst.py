from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.dataset import Dataset

from tests import builders, filed
from triage_node import analyst, config, inference, logbook, node, results, volume
from triage_node.archive import Archive
from triage_node.custody import Custody
from triage_node.doorbell import Doorbell
from triage_node.errors import ConfigurationError, OutOfResources, ReadingRefused
from triage_node.filing import read_file
from triage_node.journal import Journal, intake, queue, views, workitems
from triage_node.study import OperatingPoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triage_node.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return config.parse("[analysis]\nmethod = 'threshold'", folder=tmp_path)


@pytest.fixture
def journal(settings: Settings) -> Iterator[Journal]:
    Archive(settings.state_dir).prepare()
    opened = Journal(settings.state_dir, "test")
    yield opened
    opened.close()


def receive(journal: Journal, settings: Settings, folder: Path, name: str = "study", **attributes: Any) -> str:
    """Keep and queue a small series as the receiver and the desk would; its Study Instance UID."""
    paths = builders.ct_series(folder, study=name, series=name, **attributes).paths
    custody = Custody(journal, Archive(settings.state_dir))
    study = ""
    for path in paths:
        header, syntax, offset = read_file(path)
        data = path.read_bytes()
        custody.keep(header, syntax, (data[:offset], data[offset:]), association_id=None)
        study = header.study_instance_uid
    filed.close_all(journal, time.time() + 60)
    return study


def an_analyst(journal: Journal, settings: Settings) -> analyst.Analyst:
    return analyst.Analyst(settings, journal, ring_desk=lambda: None, stop=threading.Event())


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's remark on what is wrong on purpose
def test_a_uid_with_leading_zeros_is_met_in_life_and_gets_its_answer(
    journal: Journal, settings: Settings, tmp_path: Path
) -> None:
    study = receive(journal, settings, tmp_path / "series", attributes={"StudyInstanceUID": builders.Raw(b"1.2.03.4")})
    assert study == "1.2.03.4"
    assert an_analyst(journal, settings).work()
    row = views.study(journal, study)
    assert row is not None
    assert row.state in ("judged", "not_analysed")
    assert views.objects(journal, study)


def test_a_study_whose_report_cannot_be_made_stops_no_other(
    journal: Journal, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = receive(journal, settings, tmp_path / "odd", "odd")
    sound = receive(journal, settings, tmp_path / "sound", "sound")
    made = results.not_analysed

    def broken(instances: Any, *arguments: Any, **words: Any) -> Any:
        if instances[0].series.study_instance_uid == odd:
            raise RuntimeError("a fault of ours")
        return made(instances, *arguments, **words)

    monkeypatch.setattr(results, "not_analysed", broken)
    monkeypatch.setattr(analyst, "POLL_S", 0.0)
    worker = an_analyst(journal, settings)
    order = []
    while worker.work():
        order += [
            row.study_instance_uid
            for row in views.studies(journal)
            if row.result_id and row.study_instance_uid not in order
        ]
        assert len(order) < 3
    assert order == [sound, odd], "what failed waits behind what was not tried"
    row = views.study(journal, odd)
    assert row is not None
    assert row.not_analysed is not None
    assert row.not_analysed.reason == "ANALYSIS_FAILED"
    assert row.not_analysed.words
    assert not views.objects(journal, odd)


def test_a_full_disk_costs_a_study_no_attempt(
    journal: Journal, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(journal, settings, tmp_path / "series")
    worker = an_analyst(journal, settings)

    def full(*_: object) -> None:
        raise OutOfResources("the archive cannot take the object: No space left on device")

    monkeypatch.setattr(analyst, "NO_ROOM_PAUSE_S", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(Archive, "keep_result", full)
        for _ in range(settings.analysis.attempts + 2):
            assert worker.work()
    assert journal.rows("select state, attempts from jobs") == [{"state": "queued", "attempts": 0}]
    assert worker.work()
    assert journal.rows("select state, attempts from jobs") == [{"state": "done", "attempts": 1}]


def test_our_own_objects_coming_back_and_later_reports_make_no_new_answer(
    journal: Journal, settings: Settings, tmp_path: Path
) -> None:
    study = receive(journal, settings, tmp_path / "series")
    assert an_analyst(journal, settings).work()
    ours = views.objects(journal, study)[0]
    back = filed.header(study, "1.9", 1, sop_instance_uid=ours.sop_instance_uid, sop_class_uid=ours.sop_class_uid)
    assert filed.arrive(journal, back, now=time.time())
    dose = filed.header(
        study, "1.8", 1, sop_class_uid="1.2.840.10008.5.1.4.1.1.88.67", volumetric=False, geometry=None, modality="SR"
    )
    assert filed.arrive(journal, dose, now=time.time())
    filed.close_all(journal, time.time() + 60)
    assert [row["generation"] for row in journal.rows("select generation from jobs")] == [1]
    kept = intake.study(journal, study, last_instance_id=10**9, state_dir=settings.state_dir)
    assert ours.sop_instance_uid not in {i.sop_instance_uid for one in kept.series for i in one.instances}


def test_an_answer_names_one_predecessor_and_not_the_whole_past(
    journal: Journal, settings: Settings, tmp_path: Path
) -> None:
    study = receive(journal, settings, tmp_path / "series")
    worker = an_analyst(journal, settings)
    assert worker.work()
    for number in range(2, 5):
        filed.arrive(journal, filed.header(study, "1.7", number), now=time.time())
        filed.close_all(journal, time.time() + 60)
        assert worker.work()
    rows = journal.rows("select identity_json from results order by generation")
    identities = [queue.IDENTITY.validate_json(row["identity_json"]) for row in rows]
    assert [identity.predecessor is not None for identity in identities] == [False, True, True, True]
    assert all(one.predecessor is None or one.predecessor.predecessor is None for one in identities)


def test_a_study_that_was_read_leaves_the_queue_and_can_be_put_back(
    journal: Journal, settings: Settings, tmp_path: Path
) -> None:
    study = receive(journal, settings, tmp_path / "series")
    assert an_analyst(journal, settings).work()
    before = views.study(journal, study)
    assert before is not None
    workitems.finish(journal, study, "reader", time.time())
    during = views.study(journal, study)
    assert during is not None
    assert during.state == "read"
    workitems.release(journal, study, "reader", time.time())
    after = views.study(journal, study)
    assert after == before
    with pytest.raises(ReadingRefused, match=r"no study 1\.2\.3\.4\.5"):
        workitems.finish(journal, "1.2.3.4.5", "reader", time.time())


def test_a_traceback_names_no_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logbook.configure("test", tmp_path, config.LogSection())
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Secret^Name", "SECRET-1", "19010203"

    def fail(held: object) -> None:
        raise RuntimeError(f"a fault near {type(held).__name__}")

    try:
        fail(dataset)
    except RuntimeError:
        logbook.get().exception("analysis failed")
    shown = capsys.readouterr().err + logbook.file_of(tmp_path).read_text(encoding="utf-8")
    assert "a fault near Dataset" in shown
    assert not any(words in shown for words in ("Secret^Name", "SECRET-1", "19010203"))


def test_a_threshold_that_contradicts_the_model_card_ends_the_process_with_its_key(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = config.parse('[analysis]\nmethod = "threshold"\n[worklist]\nfraction_high = 0.1', folder=tmp_path)
    with pytest.raises(ConfigurationError, match=r"worklist\.fraction_high: found 0\.1; allowed: 0\.25 or more"):
        an_analyst(journal, wrong)
    logbook.configure("test", tmp_path, config.LogSection())
    bell = Doorbell.make()
    assert analyst.run(wrong, bell, ring_desk=lambda: None, stop=threading.Event()) == node.MISCONFIGURED
    assert "worklist.fraction_high: found 0.1" in capsys.readouterr().err


def test_other_thresholds_give_other_objects_and_other_rules_of_the_list_the_same(tmp_path: Path) -> None:
    study = volume.study_in(builders.ct_series(tmp_path / "series").paths[0].parent)[0]
    method = inference.load(config.AnalysisSection(method="threshold"))
    occasion = analyst.Occasion(generation=1, created_at=datetime(2026, 1, 1, tzinfo=UTC))

    def uid(text: str, judge: inference.Method = method) -> str:
        settings = config.parse(text, folder=tmp_path)
        return analyst.walk(study, judge, settings, occasion, lambda *_: None).identity.uid("report")

    same = {uid(""), uid("[worklist]\nmax_wait_min = 5.0\nstrategy = 'severity'"), uid("[worklist]\nfraction_high=0.5")}
    card = replace(method.model, operating_point=OperatingPoint(probability_medium=0.1))
    others = [
        uid("[worklist]\nprobability_high = 0.6"),
        uid("[worklist]\nfraction_medium = 0.3"),
        uid("[analysis]\ngrades_up_to = [0.2, 0.5, 0.75]"),
        uid("[analysis]\nlesion_threshold = 0.4"),
        uid("[analysis]\nconsolidation_hu = -300"),
        uid("", replace(method, model=card)),
        uid("", replace(method, model=replace(method.model, parameters=(("lesion_threshold", "0.4"),)))),
        uid("", replace(method, model=replace(method.model, trust="Little."))),
    ]
    assert len({*same, *others}) == len(same) + len(others)
