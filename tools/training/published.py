"""Finding the files of a published data set, and saying what is missing in the set's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from annotations.unusable import Unusable

if TYPE_CHECKING:
    from pathlib import Path

NIFTI_ENDINGS = (".nii.gz", ".nii")  # some mirrors unpack the files


def folder(below: Path, *names: str) -> Path:
    """The first of the folders that is there: `below` itself where it bears one of the names.

    Raises Unusable.
    """
    for name in names:
        if (below / name).is_dir():
            return below / name
    if below.name in names:
        return below
    raise Unusable(f"expected the folder {' or '.join(names)} below {below}")


def nifti(below: Path, *stems: str) -> Path:
    """The NIfTI file with the first of the stems that is there, packed or not. Raises Unusable."""
    for stem in stems:
        for ending in NIFTI_ENDINGS:
            path = below / f"{stem}{ending}"
            if path.is_dir():  # mirrors that unpack a.nii.gz into a.nii/a.nii
                path = next(iter(sorted(path.glob("*.nii"))), path)
            if path.is_file():
                return path
    raise Unusable(f"expected {' or '.join(f'{stem}.nii.gz' for stem in stems)} in {below}")


def niftis(below: Path, pattern: str = "*") -> list[Path]:
    """The NIfTI files of a folder whose stems match, sorted. Raises Unusable where there is none."""
    found = sorted({path for ending in NIFTI_ENDINGS for path in below.glob(pattern + ending)})
    if not found:
        raise Unusable(f"expected {pattern}.nii.gz in {below}")
    return found


def stem_of(path: Path) -> str:
    """The name without .nii.gz, .nii or .mhd."""
    return path.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".mhd")


def patients(below: Path, collection: str, pattern: str) -> list[Path]:
    """The patients' folders of a TCIA collection, which lies in the folder, below a manifest, or is the folder.

    Raises Unusable.
    """
    for place in (below / collection, *sorted(below.glob(f"*/{collection}")), below):
        found = sorted(path for path in place.glob(pattern) if path.is_dir())
        if found:
            return found
    raise Unusable(f"expected {collection}/{pattern} below {below}")
