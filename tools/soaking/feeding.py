"""Phantom studies, and a modality that sends them again and again until every image is acknowledged."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from triage_node.phantom import Phantom, PhantomSpec, make
from triage_node.phantom_dicom import Person, write_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pynetdicom.association import Association

SPEC = PhantomSpec(
    seed=1, slices=24, rows=96, columns=96, spacing_zyx_mm=(10.0, 4.0, 4.0), right_fraction=0.3, left_fraction=0.1
)
TIMEOUT_S = 10.0
AGAIN_S = 0.2
OUT_OF_RESOURCES = range(0xA700, 0xA800)


class NotSent(Exception):
    """The node refused an image for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A study of which the node has acknowledged every image."""

    number: int
    study_instance_uid: str
    images: int
    associations: int  # how many it took


def phantom() -> Phantom:
    """The one chest that all patients of a soak have, made in a process of its own.

    Threads of the linear algebra library, which read their number when they are loaded, would fight for the cores.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as worker:
        return worker.submit(make, SPEC).result()


def send(chest: Phantom, number: int, folder: Path, port: int, *, seed: int, go_on: Callable[[], bool]) -> Sent | None:
    """Send study `number` of the soak; None when `go_on` said no before all was acknowledged.

    Raises NotSent with the status when the node refuses an image for good.
    """
    files = write_series(folder, chest, person=Person(number=number, salt=f"soak {seed}"))
    images = len(files)
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    associations = 0
    ae = AE(ae_title="MODALITY")
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    while files:
        if not go_on():
            return None
        association = ae.associate("127.0.0.1", port, ae_title="TRIAGE")
        if not association.is_established:
            time.sleep(AGAIN_S)
            continue
        associations += 1
        for path in list(files):
            answer = None
            with contextlib.suppress(RuntimeError, ValueError, OSError):  # the receiver went away
                answer = association.send_c_store(path)
            if answer is None or "Status" not in answer:
                break
            if answer.Status == 0x0000:
                files.remove(path)
            elif answer.Status not in OUT_OF_RESOURCES:
                raise NotSent(f"the node answered 0x{answer.Status:04X} to {path.name} of study {number}")
        _end(association)
    shutil.rmtree(folder)
    return Sent(number=number, study_instance_uid=uid, images=images, associations=associations)


def _end(association: Association) -> None:
    if association.is_established:
        association.release()
    else:
        association.abort()
