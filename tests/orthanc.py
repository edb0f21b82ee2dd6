"""A real Orthanc as the PACS, on request with its DICOMweb interface."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import peers, running

if TYPE_CHECKING:
    from collections.abc import Iterator

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@contextmanager
def orthanc(folder: Path, *, dicomweb: bool = False) -> Iterator[tuple[int, str]]:
    """A running Orthanc; yields its DICOM port and the address of its REST interface."""
    program = peers.require("Orthanc", package="orthanc")
    if dicomweb and not DICOMWEB.is_file():
        peers.missing(f"{DICOMWEB} is not installed: install the package orthanc-dicomweb")
    folder.mkdir(parents=True)
    dicom, http = running.free_port(), running.free_port()
    configuration = {
        "Name": "PACS",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomAet": "ORTHANC",
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [str(DICOMWEB)] if dicomweb else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(program), str(path)], stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{http}"
        running.until(lambda: rest(f"{address}/system"), 60, "Orthanc answers")
        yield dicom, address
    finally:
        process.terminate()
        process.wait(30)


def rest(address: str) -> Any:
    """The JSON at an address; None where there is none yet."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None
