"""What tools/evaluate.py takes for a study: layouts of .npz and NIfTI files, label files, the split."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from annotations.unusable import Unusable
from evaluation import finding, naming, paired
from evaluation.cases import Case
from evaluation.naming import BadLabels
from prepare_dicom import read_labels

from triage_node.config import AnalysisSection

SETTINGS = AnalysisSection(method="threshold")
REPOSITORY = Path(__file__).parents[2]


def found(data: Path, split: dict[str, str] | None = None) -> dict[str, Case]:
    return {case.name: case for case in finding.find(data, SETTINGS, split).cases}


def stack(path: Path, slices: int = 30) -> None:
    """A scan of COVID-19-CT-Seg: crops of 20 x 30 pixels whose last 5 columns are filler, out of order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lung = np.zeros((slices, 20, 30), dtype=np.uint8)
    lung[:, 5:15, 5:20] = 1
    lesion = np.zeros_like(lung)
    lesion[0, 5:10, 5:20] = 1
    np.savez(
        path,
        hu=np.full(lung.shape, -800, dtype=np.int16) + np.arange(slices, dtype=np.int16)[::-1, None, None],
        lung=lung,
        lesion=lesion,
        valid_box=np.tile(np.array([0, 20, 0, 25], dtype=np.int16), (slices, 1)),
        slice_index=np.arange(slices, dtype=np.int16)[::-1],
        pixel_spacing_mm=np.array([1.5, 1.5], dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("ct-md-covid-p001", "covid"),
        ("ct-md-normal-001", "healthy"),
        ("ct-md-cap-001", "other"),
        ("lung1-001", "other"),
        ("lidc-1011", "other"),
        ("ricord-1a-000082", "covid"),
        ("MIDRC-RICORD-1C-419639", "other"),
        ("non-covid-12", "other"),
        ("CT-0", "healthy"),
        ("CT-3", "covid"),
        ("community-acquired pneumonia (COVID-CT-MD)", "other"),
        ("lung nodules, not COVID-era (LIDC-IDRI)", "other"),
        ("patient_17", None),
        ("abnormal", None),
    ],
)
def test_names_tell_the_group_or_nothing(text: str, group: str | None) -> None:
    assert naming.group_in(text) == group


def test_the_innermost_telling_folder_decides() -> None:
    assert naming.group_of_path(("COVID19_1110", "studies", "CT-0", "study_0001")) == "healthy"


def test_scans_of_one_person_are_one_patient_under_each_of_their_names() -> None:
    names = [
        "radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm",
        "radiopaedia_org_covid-19-pneumonia-10_85902_3-dcm",
        "radiopaedia_10_85902_1",
        "radiopaedia_10_85902",
    ]
    assert {naming.patient_of(name) for name in names} == {("radiopaedia_10", ("radiopaedia_10_85902",))}
    assert naming.patient_of("coronacases_org_002") == ("coronacases_002", ())
    assert naming.side_of(("radiopaedia_29",), {"radiopaedia_29_86490": "train"}) == ("radiopaedia_29_86490", "train")
    assert naming.side_of(("radiopaedia_2",), {"radiopaedia_29_86490": "train"}) is None
    with pytest.raises(BadLabels, match="both sides"):
        naming.side_of(("a", "b"), {"a": "train", "b": "test"})


def test_the_shipped_split_knows_every_scan_of_the_published_layouts(tmp_path: Path) -> None:
    split = naming.read_split(REPOSITORY / "nets" / "weights" / "split.json")
    for name in ("coronacases_org_002", "radiopaedia_org_covid-19-pneumonia-29_86491_1-dcm"):
        stack(tmp_path / f"{name}.npz")
    sides = {name: (case.patient, case.split) for name, case in found(tmp_path, split).items()}
    assert sides["coronacases_org_002"] == ("coronacases_002", split["coronacases_002"])
    assert sides["radiopaedia_org_covid-19-pneumonia-29_86491_1-dcm"] == ("radiopaedia_29", split["radiopaedia_29"])


@pytest.mark.parametrize("inside", ["", "slices/covid_ct_seg"])
def test_a_stack_is_found_at_any_depth_and_counts_inside_its_boxes(tmp_path: Path, inside: str) -> None:
    stack(tmp_path / inside / "coronacases_org_001.npz")
    (case,) = found(tmp_path).values()
    assert (case.kind, case.group, case.patient) == ("stack", "covid", "coronacases_001")
    drawn = case.read()
    assert drawn.counted is not None
    assert drawn.lungs is not None
    assert drawn.lesions is not None
    assert np.count_nonzero(drawn.counted) == 30 * 20 * 25
    assert not drawn.in_ml
    # in order of the slices: the lesion lay in the one with the highest index
    assert drawn.lesions.any(axis=(1, 2)).nonzero()[0].tolist() == [29]
    inside_lungs = drawn.volume.hounsfield[drawn.lungs > 0].reshape(30, -1)
    assert inside_lungs[:, 0].tolist() == list(range(-800, -770))


def test_two_slices_become_a_chest_of_which_two_count(tmp_path: Path) -> None:
    stack(tmp_path / "radiopaedia_org_covid-19-pneumonia-29_86490_1-dcm.npz", slices=2)
    (case,) = found(tmp_path).values()
    drawn = case.read()
    assert len(drawn.volume.hounsfield) == 20
    assert np.count_nonzero(drawn.counted) == 2 * 20 * 25


def test_whole_volumes_and_single_slices_of_medseg(tmp_path: Path) -> None:
    labels = np.zeros((3, 4, 5), dtype=np.uint8)
    labels[0, 0, :3] = [1, 2, 3]
    image = np.full(labels.shape, -700, dtype=np.int16)
    spacing = np.array([6.0, 1.4, 1.4])
    np.savez(
        tmp_path / "medseg_1.npz", hu_approx=image, lung=labels > 0, lesion=labels, spacing_zyx_mm_unreliable=spacing
    )
    np.savez(tmp_path / "medseg_100.npz", hu_approx=image, lesion=labels > 0, classes=labels)
    cases = found(tmp_path, {"medseg_100/2": "test", "radiopaedia_7_85703": "validation"})
    assert set(cases) == {"medseg_1", "medseg_100/0", "medseg_100/1", "medseg_100/2"}
    assert (cases["medseg_1"].split, cases["medseg_100/2"].split, cases["medseg_100/1"].split) == (
        "validation",
        "test",
        None,
    )
    assert cases["medseg_100/2"].group is None
    volume = cases["medseg_1"].read()
    assert volume.lesions is not None
    assert volume.consolidation is not None
    assert volume.lesions[0, 0].tolist() == [True, True, False, False, False]  # 3 is an effusion
    assert volume.consolidation[0, 0].tolist() == [False, True, False, False, False]
    single = cases["medseg_100/0"].read()
    assert single.lungs is None
    assert single.consolidation is not None
    assert single.consolidation[single.counted].sum() == 1


def test_a_training_study_is_read_with_its_card(tmp_path: Path) -> None:
    labels = np.zeros((12, 4, 5), dtype=np.uint8)
    labels[0] = 2
    np.savez(tmp_path / "s1.npz", hounsfield=np.zeros(labels.shape, np.int16), lungs=labels > 0, lesions=labels)
    card = {"patient": "p1", "source": "LCTSC", "covid": False, "healthy": True, "classes": False, "split": "test"}
    (tmp_path / "s1.json").write_text(json.dumps(card | {"spacing_zyx_mm": [5.0, 2.0, 2.0], "contiguous": True}))
    case = found(tmp_path)["s1"]
    assert (case.patient, case.source, case.group, case.split) == ("p1", "LCTSC", "healthy", "test")
    drawn = case.read()
    assert drawn.volume.spacing_zyx_mm == (5.0, 2.0, 2.0)
    assert drawn.in_ml
    assert drawn.consolidation is None
    assert drawn.lesions is not None
    assert drawn.lesions.sum() == 20


def test_files_that_are_no_study_are_left_out_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    left_out = {Path(entry.path).name: entry.why for entry in finding.find(tmp_path, SETTINGS).left_out}
    assert "not a .npz file" in left_out["broken.npz"]
    assert "weights" in left_out["other.npz"]


def test_a_label_file_goes_before_names(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        stack(tmp_path / "set" / f"{name}.npz")
    (tmp_path / "labels.csv").write_text("study,patient,covid,group\na,p1,0,healthy\nset/b.npz,p1,,other\nc,,1,\n")
    cases = found(tmp_path)
    assert [(cases[name].group, cases[name].patient) for name in "abc"] == [
        ("healthy", "p1"),
        ("other", "p1"),
        ("covid", "c"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,covid\na,1\n", "no column 'study'"),
        ("study,group\na,ill\n", "line 2: group is 'ill'"),
        ("study,covid\na,perhaps\n", "covid is 'perhaps'"),
        ("study,covid,group\na,1,healthy\n", "contradict"),
    ],
)
def test_a_wrong_label_file_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(BadLabels, match=words):
        found(tmp_path)


def test_the_label_file_of_a_hospital_is_the_one_that_training_is_prepared_with(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        stack(tmp_path / f"{name}.npz")
    text = "study;patient;covid;healthy\na;p1;yes;no\nb;p2;no;yes\nc;p3;no;no\nd;p4;;\n"
    (tmp_path / "labels.csv").write_text("\ufeff" + text, encoding="utf-8")
    cases = found(tmp_path)
    assert [cases[name].group for name in "abcd"] == ["covid", "healthy", "other", "covid"]  # d: by its layout
    assert [cases[name].patient for name in "abcd"] == ["p1", "p2", "p3", "p4"]
    assert {name: label.healthy for name, label in read_labels(tmp_path / "labels.csv").items()} == {
        "a": False,
        "b": True,
        "c": False,
        "d": None,
    }


def test_labels_without_a_study_and_files_of_other_kinds_are_said(tmp_path: Path) -> None:
    stack(tmp_path / "a.npz")
    (tmp_path / "labels.csv").write_text("study,covid\na,1\nb,1\n")
    for name in ("drawings/1.xml", "drawings/2.xml", "a.nrrd", "clinical.xlsx", "notes.txt", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"something")
    left_out = {str(Path(e.path).relative_to(tmp_path)): e.why for e in finding.find(tmp_path, SETTINGS).left_out}
    assert left_out.keys() == {"labels.csv, 'b'", "drawings/*.xml", "*.nrrd", "*.xlsx"}
    assert left_out["labels.csv, 'b'"] == "no study of this name was found"
    assert left_out["drawings/*.xml"].startswith("2 of a kind that is not read")
    assert "labels.csv" in left_out["*.xlsx"]


def test_a_folder_with_labels_alone_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("study,covid\na,1\n")
    image_of(np.eye(4), np.zeros((4, 4, 4), dtype=np.uint8), tmp_path / "masks" / "study_0255_mask.nii.gz")
    result = finding.find(tmp_path, SETTINGS)
    assert result.cases == ()
    assert [entry.why for entry in result.left_out] == [
        "a mask, but no image is called study_0255",
        "no study of this name was found",
    ]


def test_masks_for_some_studies_of_mosmed_are_enough(tmp_path: Path) -> None:
    image = np.full((6, 5, 4), -500, dtype=np.int16)
    for category, name in ((0, "study_0001"), (1, "study_0255"), (1, "study_0256")):
        image_of(np.eye(4), image, tmp_path / "studies" / f"CT-{category}" / f"{name}.nii.gz")
    image_of(np.eye(4), (image < 0).astype(np.float64), tmp_path / "masks" / "study_0255_mask.nii.gz")
    cases = found(tmp_path)
    assert {name: case.group for name, case in cases.items()} == {
        "study_0001": "healthy",
        "study_0255": "covid",
        "study_0256": "covid",
    }
    lesions = {name: case.read().lesions for name, case in cases.items()}
    assert lesions["study_0255"] is not None
    assert lesions["study_0255"].all()
    assert (lesions["study_0001"], lesions["study_0256"]) == (None, None)


def test_a_readme_with_a_table_of_folders_labels_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    stack(data / "dicom" / "p7.npz")
    (data / "README.md").write_text("| folder | what |\n|---|---|\n| p7 + p7-lungs.npz | normal (COVID-CT-MD) |\n")
    assert found(data)["p7"].group == "healthy"
    assert found(data / "dicom")["p7"].group == "healthy"


def image_of(affine: np.ndarray, values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@pytest.mark.parametrize(
    ("paths", "roles"),
    [
        (("images/p1.nii.gz", "masks/p1_mask.nii.gz"), {"p1": ["image", "lesions"]}),
        (("p1_ct.nii.gz", "p1_seg.nii.gz"), {"p1": ["image", "lesions"]}),
        (("imagesTr/p1_0000.nii.gz", "labelsTr/p1.nii.gz"), {"p1": ["image", "lesions"]}),
        (("p1/ct.nii.gz", "p1/lungs.nii.gz", "p1/lesions.nii.gz"), {"p1": ["image", "lesions", "lungs"]}),
        (
            (
                "COVID-19-CT-Seg_20cases/coronacases_001.nii.gz",
                "Infection_Mask/coronacases_001.nii.gz",
                "Lung_Mask/coronacases_001.nii.gz",
                "Lung_and_Infection_Mask/coronacases_001.nii.gz",
            ),
            {"coronacases_001": ["both", "image", "lesions", "lungs"]},
        ),
        (("studies/CT-1/study_0255.nii.gz", "masks/study_0255_mask.nii.gz"), {"study_0255": ["image", "lesions"]}),
        (("rp_im/1.nii.gz", "rp_msk/1.nii.gz", "rp_lung_msk/1.nii.gz"), {"rp_1": ["image", "lesions", "lungs"]}),
    ],
)
def test_images_and_masks_are_paired_by_their_names(
    tmp_path: Path, paths: tuple[str, ...], roles: dict[str, list[str]]
) -> None:
    files = [paired._of(tmp_path / path, tmp_path) for path in paths]
    seen: dict[str, list[str]] = {}
    for file in files:
        seen.setdefault(file.key, []).append(file.role)
    assert {key: sorted(values) for key, values in seen.items()} == roles


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAS", "SPL"])
def test_an_image_comes_out_the_same_however_its_axes_lie(tmp_path: Path, codes: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(-1000, 100, (4, 5, 6)).astype(np.int16)  # z to the head, y to the back, x to the left
    lesion = (rng.random(truth.shape) < 0.3).astype(np.uint8)
    lungs = np.ones_like(lesion)
    lungs[..., :3] = 2  # whichever label: the patient's right lies at small x
    lps = np.diag([-2.0, -3.0, 4.0, 1.0])  # x to the left and y to the back, in RAS millimetres
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("LPS"), nibabel.orientations.axcodes2ornt(codes)
    )
    for name, values in (("images/p.nii.gz", truth), ("masks/p_mask.nii.gz", lesion), ("masks/p_lungs.nii", lungs)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), lps).as_reoriented(turn), path)
    drawn = found(tmp_path)["p"].read()
    assert drawn.volume.hounsfield.tolist() == truth.tolist()
    assert drawn.volume.spacing_zyx_mm == (4.0, 3.0, 2.0)
    assert np.allclose(drawn.volume.affine_lps_mm[:3, :3], np.diag([2.0, 3.0, 4.0]))
    assert drawn.lesions is not None
    assert drawn.lungs is not None
    assert drawn.lesions.tolist() == (lesion > 0).tolist()
    assert drawn.sided
    assert (drawn.lungs[..., :3] == 1).all()
    assert drawn.remarks == ()


def test_a_scan_of_covid_19_ct_seg_keeps_its_sides_beside_the_mask_that_holds_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 100, (6, 5, 4)).astype(np.int16)
    lungs = np.ones(image.shape, dtype=np.uint8)  # as published: 1 the left lung, which lies at high x of RAS
    lungs[3:] = 2
    lesion = np.zeros_like(lungs)
    lesion[1, 2, 3] = 1
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    for folder, values in (
        ("COVID-19-CT-Seg_20cases", image),
        ("Infection_Mask", lesion),
        ("Lung_Mask", lungs),
        ("Lung_and_Infection_Mask", np.where(lesion, 3, lungs).astype(np.uint8)),
    ):
        image_of(affine, values, tmp_path / folder / "coronacases_001.nii.gz")
    case = found(tmp_path)["coronacases_001"]
    assert (case.group, case.patient) == ("covid", "coronacases_001")
    drawn = case.read()
    assert drawn.sided
    assert drawn.lungs is not None
    assert set(np.unique(drawn.lungs)) == {1, 2}
    assert drawn.lesions is not None
    assert np.array_equal(drawn.lesions, lesion.transpose(2, 1, 0) > 0)
    for folder in ("Infection_Mask", "Lung_Mask"):
        (tmp_path / folder / "coronacases_001.nii.gz").unlink()
    alone = found(tmp_path)["coronacases_001"].read()
    assert not alone.sided
    assert np.array_equal(alone.lungs, np.ones_like(drawn.lungs))
    assert np.array_equal(alone.lesions, drawn.lesions)


def test_axes_that_are_not_quite_at_right_angles_are_read(tmp_path: Path) -> None:
    crooked = np.diag([-2.0, -2.0, 5.0, 1.0])
    crooked[1, 2] = 0.4
    image = np.full((6, 5, 4), -500, dtype=np.int16)
    image_of(crooked, image, tmp_path / "p_ct.nii.gz")
    image_of(crooked, (image < 0).astype(np.uint8), tmp_path / "p_lungs.nii.gz")
    drawn = found(tmp_path)["p"].read()
    assert drawn.lungs is not None
    assert drawn.lungs.all()
    assert drawn.remarks == ()


def test_a_mask_that_lost_its_header_is_taken_voxel_by_voxel_and_one_that_does_not_fit_is_named(tmp_path: Path) -> None:
    image = np.full((6, 5, 4), -500, dtype=np.int16)
    mask = np.zeros(image.shape, dtype=np.uint8)
    mask[0, 0, 0] = 1
    image_of(np.diag([-2.0, -2.0, 5.0, 1.0]), image, tmp_path / "p_ct.nii.gz")
    image_of(np.eye(4), mask, tmp_path / "p_seg.nii.gz")
    image_of(np.eye(4), mask[1:], tmp_path / "p_lungs.nii.gz")
    drawn = found(tmp_path)["p"].read()
    assert drawn.lesions is not None
    assert drawn.lesions[0, 0, 0]
    assert drawn.lungs is None
    assert any("voxel by voxel" in words for words in drawn.remarks)
    assert any("p_lungs.nii.gz is (5, 5, 4)" in words for words in drawn.remarks)


def test_an_image_without_hounsfield_units_cannot_be_judged(tmp_path: Path) -> None:
    image_of(np.eye(4), np.zeros((4, 4, 4), dtype=np.uint8), tmp_path / "radiopaedia_4_85506_1.nii.gz")
    case = found(tmp_path)["radiopaedia_4_85506_1"]
    assert case.patient == "radiopaedia_4"
    with pytest.raises(Unusable, match="no Hounsfield units"):
        case.read()


def test_a_mask_without_an_image_is_left_out(tmp_path: Path) -> None:
    image_of(np.eye(4), np.zeros((4, 4, 4), dtype=np.uint8), tmp_path / "masks" / "p9.nii.gz")
    (entry,) = finding.find(tmp_path, SETTINGS).left_out
    assert "no image is called p9" in entry.why
