"""OHIF, the viewer that most research archives show to radiologists, beside a DICOMweb source.

`tools/test` fetches the built viewer (the npm package @ohif/app) into .venv/ohif; its pages and the archive are served
under one address, as a hospital's reverse proxy would.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pydicom
import uvicorn
from playwright.sync_api import sync_playwright
from starlette.applications import Starlette
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tests import peers
from tests.orthanc import orthanc
from tests.running import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab
    from starlette.requests import Request

VIEWER = Path(sys.prefix) / "ohif"
# Chromium draws without a graphics card; the viewer's shaders need WebGL all the same
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
# Without these Chromium gives the viewer no memory that its workers share
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
SETTINGS: dict[str, Any] = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 1,
    "showLoadingIndicator": True,
    "disableConfirmationPrompts": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "archive",
                "name": "archive",
                "wadoUriRoot": "/wado",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "supportsReject": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}


def require() -> Path:
    """Folder of the built viewer."""
    if (VIEWER / "index.html").is_file():
        return VIEWER
    peers.missing(f"OHIF is not in {VIEWER}: `tools/test` fetches it with npm")


@contextmanager
def served(archive: str) -> Iterator[str]:
    """The viewer before the DICOMweb interface of `archive` (an http address); yields the viewer's address."""
    viewer = require().resolve()
    client = httpx.Client(base_url=archive, timeout=60)

    def proxy(request: Request) -> Response:
        # the archive writes absolute addresses into its answers: they must be the viewer's
        headers = {name: request.headers[name] for name in ("accept", "host") if name in request.headers}
        path = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        answer = client.get(path, headers=headers)
        kept = {"content-type": answer.headers.get("content-type", "application/octet-stream")}
        return Response(answer.content, answer.status_code, headers=kept | ISOLATED)

    def page(request: Request) -> Response:
        if request.url.path == "/app-config.js":
            text = f"window.config = {json.dumps(SETTINGS)};"
            return Response(text, media_type="text/javascript", headers=ISOLATED)
        path = (viewer / request.url.path.lstrip("/")).resolve()
        if not path.is_file() or not path.is_relative_to(viewer):
            path = viewer / "index.html"  # the viewer's own router knows the address
        return FileResponse(path, headers=ISOLATED)

    routes = [
        Route("/dicom-web/{rest:path}", proxy),
        Route("/wado", proxy),
        Route("/{rest:path}", page),
    ]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        options = uvicorn.Config(
            Starlette(routes=routes), log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(options)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        until(lambda: server.started, 20, "the viewer is served")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)
        client.close()


# ------------------------------------------------------------------------------------------ at work

# The viewer's own objects, which it offers to its own tests: the viewport that shows an image
VIEWPORT = "cornerstone.getRenderingEngines().flatMap(engine => engine.getViewports()).find(one => one.getImageIds)"
SHOW = f"""async uid => {{
    const viewport = {VIEWPORT};
    const index = viewport.getImageIds().findIndex(id => id.includes('/instances/' + uid + '/'));
    await viewport.setImageIdIndex(index);
    viewport.render();
    for (let before = null, same = 0; same < 2;) {{
        await new Promise(done => setTimeout(done, 150));
        const now = viewport.getCanvas().toDataURL();
        same = now === before ? same + 1 : 0;
        before = now;
    }}
    return viewport.getCurrentImageId();
}}"""
CANVAS = f"""points => {{
    const viewport = {VIEWPORT}, canvas = viewport.getCanvas(), scale = canvas.width / canvas.clientWidth;
    const places = points.map(point => viewport.worldToCanvas(point).map(value => value * scale));
    return {{places, png: canvas.toDataURL('image/png')}};
}}"""
NEXT_MEASUREMENT = "[data-cy=viewport-pane] svg.rotate-180"  # of a report: the arrow to the right
BROKEN = "Something went wrong"  # what the viewer says in place of what it cannot show
SEGMENTATIONS = "services.segmentationService.getSegmentations().length"


def tab(browser: Browser, *, width: int = 1000, height: int = 560) -> Tab:
    """A tab without the viewer's guided tour."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
    return context.new_page()


def open_study(tab: Tab, viewer: str, study_instance_uid: str) -> None:
    """Open a study and wait until an image of it is drawn."""
    tab.goto(f"{viewer}/viewer?StudyInstanceUIDs={study_instance_uid}")
    tab.locator(".cornerstone-viewport-element canvas").first.wait_for(timeout=60_000)
    tab.wait_for_function(f"{VIEWPORT}?.getCurrentImageId()", timeout=60_000)


def open_series(tab: Tab, number: str) -> None:
    """Open a segmentation, named as in the list ("S:9801"), over the images and wait until it is there."""
    before = tab.evaluate(SEGMENTATIONS)
    tab.get_by_text(number).dblclick()
    tab.wait_for_function(f"{SEGMENTATIONS} > {before}", timeout=60_000)


def open_report(tab: Tab, number: str, words: str) -> None:
    """Open a report, named as in the list, and wait until these words of it are on the screen."""
    tab.get_by_text(number).dblclick()
    wrong = tab.get_by_text(BROKEN)
    tab.get_by_text(words).or_(wrong).first.wait_for(timeout=60_000)
    assert wrong.count() == 0, wrong.first.inner_text()


def next_measurement(tab: Tab, words: str) -> None:
    """Go to the next measurement of the report that is open, and wait until these words of it are on the screen."""
    tab.locator(NEXT_MEASUREMENT).click()
    tab.get_by_text(words).first.wait_for(timeout=60_000)


def current_image(tab: Tab) -> str:
    """SOP Instance UID of the image that is shown."""
    address = str(tab.evaluate(f"{VIEWPORT}.getCurrentImageId()"))
    return address.partition("/instances/")[2].partition("/")[0]


def series(tab: Tab) -> dict[str, str]:
    """Series number -> modality, as the viewer lists them."""
    entries = tab.locator("[data-cy^=study-browser-thumbnail]")
    entries.first.wait_for(timeout=60_000)
    words = [entry.inner_text().splitlines() for entry in entries.all()]
    return {next(word for word in entry if word.startswith("S:")): entry[0] for entry in words}


def show_image(tab: Tab, sop_instance_uid: str) -> str:
    """Scroll to an image and wait until nothing moves any more; the image that is shown then."""
    return str(tab.evaluate(SHOW, sop_instance_uid))


def canvas(tab: Tab, points_mm: Sequence[npt.NDArray[np.float64]]) -> dict[str, Any]:
    """The canvas as a PNG address, and where patient coordinates lie on it, in its pixels."""
    drawn: dict[str, Any] = tab.evaluate(CANVAS, [point.tolist() for point in points_mm])
    return drawn


# ------------------------------------------------------------------------------------------ a picture of it

LUNG_WINDOW = f"() => {{const v = {VIEWPORT}; v.setProperties({{voiRange: {{lower: -1350, upper: 150}}}}); v.render()}}"


def photograph(files: Path, accession_number: str, picture: Path) -> None:
    """A study and the results beside it (every DICOM file below `files` is read) on the slice with most lesions."""
    with tempfile.TemporaryDirectory() as place, orthanc(Path(place) / "orthanc", dicomweb=True) as (_, address):
        lesions, study = None, ""
        for path in sorted(files.rglob("*.dcm")):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if header.AccessionNumber != accession_number:
                continue
            httpx.post(f"{address}/instances", content=path.read_bytes(), timeout=60).raise_for_status()
            study = str(header.StudyInstanceUID)
            lesions = pydicom.dcmread(path) if header.get("SeriesNumber") == 9801 else lesions
        assert lesions is not None, f"no lesions of {accession_number} below {files}"
        areas = lesions.pixel_array.reshape(-1, lesions.Rows * lesions.Columns).sum(axis=1)
        frame = lesions.PerFrameFunctionalGroupsSequence[int(areas.argmax())]
        shown = str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        with served(address) as viewer, sync_playwright() as playwright:
            chromium = peers.require("chromium", package="chromium")
            browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
            page = tab(browser, width=1400, height=760)
            open_study(page, viewer, study)
            open_series(page, "S:9801")
            page.locator("[data-cy=panelSegmentation-btn]").click()
            page.evaluate(LUNG_WINDOW)
            show_image(page, shown)
            page.screenshot(path=picture)
            browser.close()


if __name__ == "__main__":
    photograph(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
