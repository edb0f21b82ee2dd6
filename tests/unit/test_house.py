"""The rules of the house: each gate is proven by a fault that it must find."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("triage_node", "nets")
OURS = [path for package in (*PACKAGES, "tools") for path in sorted((ROOT / package).rglob("*.py"))]
SOURCES = [*OURS, *sorted((ROOT / "tests").rglob("*.py"))]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__main__.py"
]
LONGEST = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---------------------------------------------------------------------- shape


def test_every_package_is_installed() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    there = {
        ".".join(path.parent.relative_to(ROOT).parts) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }
    assert set(described["tool"]["setuptools"]["packages"]) == there


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_no_module_grows_past_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_has_a_concept_for_a_name(path: Path) -> None:
    vague = {"util", "utils", "helper", "helpers", "common", "manager", "misc", "base", "tools"}
    assert not vague & set(re.split(r"[_.]", path.name))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stat().st_size], ids=name_of)
def test_every_module_postpones_its_annotations_and_has_no_open_ends(path: Path) -> None:
    text = path.read_text()
    assert "from __future__ import annotations\n" in text or not re.search(r"^(def|class) ", text, re.MULTILINE)
    open_ends = ("TO" + "DO", "FIX" + "ME", "XX" + "X ")
    assert not [word for word in open_ends if word in text]


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_every_exception_from_a_gate_says_its_reason(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        marked = re.search(r"#\s(noqa|type: ignore)\b(?P<rest>.*)", line)
        if marked:
            assert re.match(r"(: |\[)[\w\-, ]+\]?\s+(#\s+)?\w+", marked["rest"]), f"{path.name}:{number} {line.strip()}"


# ---------------------------------------------------------------------- the gates find planted faults


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without its history and environment; each test takes its fault away again."""
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def gate(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / command[0]
    return subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, text=True, check=False)


RUFF_FAULTS = {
    "F401": "from __future__ import annotations\n\nimport os\n",
    "E501": f"X = '{'x' * 120}'\n",
    "D103": "def public() -> None:\n    return\n",
    "ANN201": "def _one():\n    return 1\n\n\ndef two():\n    return 1\n",
    "BLE001": "try:\n    X = 1\nexcept Exception:\n    X = 2\n",
    "S602": "import subprocess\n\nsubprocess.run('ls', shell=True)\n",
}


@pytest.mark.parametrize("rule", RUFF_FAULTS)
def test_ruff_finds_a_planted_fault(copy: Path, rule: str) -> None:
    planted = copy / "triage_node" / "planted.py"
    planted.write_text(RUFF_FAULTS[rule])
    found = gate(copy, "ruff", "check", "--no-cache", "--output-format", "concise", str(planted))
    planted.unlink()
    assert found.returncode == 1
    assert rule in found.stdout


def test_ruff_finds_a_file_that_is_not_formatted(copy: Path) -> None:
    planted = copy / "triage_node" / "planted.py"
    planted.write_text("X = {  'a':1 }\n")
    found = gate(copy, "ruff", "format", "--check", "--no-cache", str(planted))
    planted.unlink()
    assert found.returncode == 1


def test_mypy_finds_a_wrong_type_and_a_missing_one(copy: Path) -> None:
    planted = copy / "triage_node" / "planted.py"
    planted.write_text("def one(a, b: int) -> int:\n    return b\n\n\nX: str = one(1, 2)\n")
    found = gate(
        copy, "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(copy / ".mypy"), "triage_node/planted.py"
    )
    planted.unlink()
    assert found.returncode == 1
    assert "[no-untyped-def]" in found.stdout
    assert "[assignment]" in found.stdout


IMPORT_FAULTS = {
    "a rule that knows the journal": ("triage_node/completion.py", "from triage_node import journal", "layers"),
    "a room that nobody has placed": ("triage_node/planted.py", '"""A room."""', "layers"),
    "torch in another room than inference": ("triage_node/severity.py", "import torch", "torch"),
    "networks in another room than inference": ("triage_node/results/__init__.py", "import nets", "torch"),
    "OpenVINO in another room than inference": ("triage_node/volume.py", "import openvino", "torch"),
    "a network that knows DICOM": ("nets/planted.py", "import pydicom", "nets"),
    "a rule with a clock": ("triage_node/priority.py", "import time", "pure"),
    "a rule that opens a socket": ("triage_node/selection.py", "import socket", "pure"),
    "a receiver that computes": ("triage_node/filing.py", "import scipy", "receiver"),
}


@pytest.mark.parametrize("fault", IMPORT_FAULTS)
def test_import_linter_finds_a_planted_fault(copy: Path, fault: str) -> None:
    path, line, contract = IMPORT_FAULTS[fault]
    file = copy / path
    before = file.read_text() if file.exists() else None
    file.write_text(f"{before or ''}\n{line}\n")
    found = gate(copy, "lint-imports", "--no-cache", "--contract", contract)
    if before is None:
        file.unlink()
    else:
        file.write_text(before)
    assert found.returncode == 1, found.stdout
    assert "BROKEN" in found.stdout


def test_import_linter_accepts_the_copy_without_a_fault(copy: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    found = gate(copy, "lint-imports", "--no-cache")
    assert found.returncode == 0, found.stdout


# ---------------------------------------------------------------------- imports do nothing

PROBE = """
import importlib, json, logging, os, socket, sys, threading

opened = []
class Socket(socket.socket):
    def __init__(self, *arguments, **options):
        opened.append(arguments)
        super().__init__(*arguments, **options)
socket.socket = Socket
def look():
    named = {None: logging.getLogger(), **logging.Logger.manager.loggerDict}
    return {
        "threads": threading.active_count(),
        "sockets": len(opened),
        "files": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd not in "012"
                        and os.path.exists(f"/proc/self/fd/{fd}") and not os.path.isdir(f"/proc/self/fd/{fd}")),
        "handlers": sorted(
            str(name) for name, logger in named.items()
            for handler in getattr(logger, "handlers", []) if not isinstance(handler, logging.NullHandler)
            and (name is None or str(name).split(".")[0] in ("triage_node", "nets"))
        ),
    }
before = look()
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({"before": before, "after": look(), "loaded": sorted(sys.modules)}))
"""


def probed(folder: Path, *modules: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *modules],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    answer: dict = json.loads(done.stdout)
    return answer


def test_importing_every_module_opens_nothing_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    answer = probed(tmp_path, *MODULES)
    assert answer["after"] == answer["before"]
    assert list(tmp_path.iterdir()) == []
    assert set(MODULES) <= set(answer["loaded"])


def test_the_probe_sees_what_an_import_must_not_do(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(
        "import logging, socket, threading, time\n"
        "logging.getLogger('triage_node').addHandler(logging.StreamHandler())\n"
        "listening = socket.socket()\n"
        "threading.Thread(target=time.sleep, args=(1,), daemon=True).start()\n"
    )
    answer = probed(tmp_path, "planted")
    for what in ("threads", "sockets", "handlers"):
        assert answer["after"][what] != answer["before"][what]


@pytest.mark.parametrize("module", ["triage_node.receiver", "triage_node.node", "triage_node.__main__"])
def test_receiver_and_supervisor_load_none_of_the_heavy_libraries(tmp_path: Path, module: str) -> None:
    """Pillow and gdcm do come in: pydicom looks for its decoders when it is imported."""
    loaded = {name.split(".")[0] for name in probed(tmp_path, module)["loaded"]}
    heavy = {"torch", "nets", "scipy", "SimpleITK", "highdicom", "starlette", "uvicorn", "apscheduler"}
    assert not loaded & heavy


def test_torch_is_loaded_by_no_module_itself(tmp_path: Path) -> None:
    """Not even by inference: what lies behind its door comes in with a method that needs it."""
    before = [name for name in MODULES if name.startswith("triage_node") and "triage_node.inference." not in name]
    assert "triage_node.inference" in before
    assert "torch" not in probed(tmp_path, *before)["loaded"]
