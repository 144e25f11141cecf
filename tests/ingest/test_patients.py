"""A subject is one patient, and a patient one subject: folders and headers compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dicom_builder
import pytest
from pydicom import Dataset

from radiobject import RadiObject
from radiobject.exceptions import IngestError
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan import join_plans
from radiobject.ingest.plan_dicom import plan_dicoms, scan_table


def write(folder: Path, patient: str, **fields: object) -> None:
    """A series of a patient, whose names begin with the patient's."""

    def edit(ds: Dataset, s: int) -> None:
        ds.PatientID = patient
        for keyword, value in fields.items():
            setattr(ds, keyword, value)

    names = [f"{patient}{fields.get('SeriesNumber', '')}-{s}" for s in range(5)]
    dicom_builder.write_series(folder, names=names, edit=edit)


def subjects(plan) -> set[str]:
    return {image.obs_subject_id for image in plan.images}


def test_the_root_of_a_disc(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / f"disc/DICOM/PA{n}/ST0/SE0", f"P{n}")
    with pytest.raises(IngestError, match=r"subject 'DICOM' would hold 3 patients.*--subject-from"):
        plan_dicoms(tmp_path / "disc")
    asked = plan_dicoms(tmp_path / "disc", subject_from="PatientID")
    assert subjects(asked) == {"P0", "P1", "P2"}
    assert subjects(plan_dicoms(tmp_path / "disc", subject_from="folder")) == {"DICOM"}
    assert subjects(plan_dicoms(tmp_path / "disc/DICOM")) == {"PA0", "PA1", "PA2"}


def test_a_flat_folder_of_three_patients(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / "flat", f"P{n}")
    with pytest.raises(IngestError, match="subject 'flat' would hold 3 patients"):
        plan_dicoms(tmp_path / "flat")


def test_one_patients_study_folder_is_not_three_subjects(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / f"study/SE{n}", "P0")
    with pytest.raises(IngestError, match="one patient would become 3 subjects, 'SE0', 'SE1'"):
        plan_dicoms(tmp_path / "study")
    with pytest.raises(IngestError, match="one patient would become 3 subjects"):
        RadiObject.from_images(str(tmp_path / "store"), {"CT": tmp_path / "study"})
    images = {"CT": tmp_path / "study"}
    radi = RadiObject.from_images(str(tmp_path / "store"), images, subject_from="PatientID")
    assert (radi.obs_subject_ids, len(radi.CT)) == (["P0"], 3)
    apart = RadiObject.from_images(str(tmp_path / "two"), images, subject_from="folder")
    assert apart.obs_subject_ids == ["SE0", "SE1", "SE2"]


def test_equal_folder_names_of_two_patients(tmp_path: Path) -> None:
    roots = [tmp_path / f"PA{n}/SE000000" for n in range(2)]
    for n, root in enumerate(roots):
        write(root, f"P{n}")
    with pytest.raises(IngestError, match="subject 'SE000000' would hold 2 patients"):
        join_plans([plan_dicoms(root, "T1") for root in roots])


def test_the_message_names_no_patient(tmp_path: Path) -> None:
    for n in range(2):
        write(tmp_path / "flat", f"SECRET{n}", SeriesNumber=n)
    with pytest.raises(IngestError) as caught:
        plan_dicoms(tmp_path / "flat")
    assert "P0" not in str(caught.value)


def test_a_series_without_an_id_is_a_line_of_the_report(tmp_path: Path) -> None:
    write(tmp_path / "in/a", "P0")
    write(tmp_path / "in/b", "")
    plan = plan_dicoms(tmp_path / "in", subject_from="PatientID")
    assert subjects(plan) == {"P0"}
    assert "no PatientID" in plan.report.refused[0].reasons[0]
    outcome = ingest_plan(str(tmp_path / "store"), plan, IngestOptions(on_error="report"))
    assert outcome.report.counts == {"accepted": 1, "warned": 0, "refused": 1}


@pytest.mark.parametrize("subject_from", [None, "folder", "PatientID"])
def test_one_series_in_the_folders_of_two_subjects(
    subject_from: str | None, tmp_path: Path
) -> None:
    """An anonymiser wrote one UID and no id into the slices of two patients, or one has two."""
    for n, folder in enumerate("ab"):
        names = [f"{n}{s}" for s in range(5)]
        dicom_builder.write_series(
            tmp_path / "in" / folder, series_uid="1.2.9", names=names, origin=(0, 0, 15.0 * n),
            edit=lambda ds, s: setattr(ds, "PatientID", "P0" if subject_from else ""),
        )  # fmt: skip
    words = "its files lie in the folders of 2 subjects, 'a', 'b'"
    if subject_from == "PatientID":
        assert subjects(plan_dicoms(tmp_path / "in", subject_from=subject_from)) == {"P0"}
    elif subject_from == "folder":
        plan = plan_dicoms(tmp_path / "in", subject_from=subject_from)
        assert not plan.images
        assert words in plan.report.refused[0].reasons[0]
    else:
        with pytest.raises(IngestError, match=f"{words}.*--subject-from"):
            plan_dicoms(tmp_path / "in")
        rows, _ = scan_table(tmp_path / "in", str)
        assert (rows[0]["subject"], words in rows[0]["reason"]) == ("", True)
    listed = plan_dicoms([(tmp_path / "in/a", "s1"), (tmp_path / "in/b", "s2")])
    assert not listed.images
    assert "'s1', 's2'" in listed.report.refused[0].reasons[0]
    together = plan_dicoms([(tmp_path / "in/a", "s1"), (tmp_path / "in/b", "s1")])
    assert subjects(together) == {"s1"}


@pytest.mark.parametrize(
    ("keyword", "values"),
    [("PatientBirthDate", ("19600102", "20010203")), ("IssuerOfPatientID", ("north", "south"))],
)
def test_one_id_of_two_people(keyword: str, values: tuple[str, str], tmp_path: Path) -> None:
    for n, value in enumerate(values):
        write(tmp_path / f"in/h{n}", "0001", **{keyword: value, "SeriesNumber": n})
        write(tmp_path / "in/h0", "0001", SeriesNumber=9, **{keyword: values[0]})
    with pytest.raises(IngestError, match=f"one PatientID stands for 2 people.*{keyword}") as error:
        plan_dicoms(tmp_path / "in", subject_from="PatientID")
    assert not any(value in str(error.value) for value in values)
    apart = [plan_dicoms(tmp_path / f"in/h{n}", subject_from="PatientID") for n in range(2)]
    with pytest.raises(IngestError, match="one PatientID stands for 2 people"):
        join_plans(apart)
    assert subjects(plan_dicoms(tmp_path / "in", subject_from="folder")) == {"h0", "h1"}


# ---- lists, globs, selections, sessions ----


def test_lists_and_globs_of_series_folders(tmp_path: Path) -> None:
    for n in range(2):
        write(tmp_path / f"export/PA{n}/CT", f"P{n}")
        write(tmp_path / f"export/PA{n}/other", f"P{n}")
    globbed = plan_dicoms(str(tmp_path / "export/*/CT"), "CT")
    assert (subjects(globbed), len(globbed.images)) == ({"PA0", "PA1"}, 2)
    listed = plan_dicoms([(tmp_path / f"export/PA{n}/CT", f"s{n}") for n in range(2)], "CT")
    assert subjects(listed) == {"s0", "s1"}
    with pytest.raises(FileNotFoundError):
        plan_dicoms(str(tmp_path / "export/*/none"))
    glob = {"CT": str(tmp_path / "export/*/CT")}
    radi = RadiObject.from_images(str(tmp_path / "store"), glob)
    assert radi.obs_subject_ids == ["PA0", "PA1"]


def test_expressions_choose_collections_in_one_pass(tmp_path: Path) -> None:
    write(tmp_path / "in/a", "P0", Modality="MR", SeriesDescription="Sag T1 MPRAGE", SeriesNumber=1)
    write(tmp_path / "in/a", "P0", Modality="MR", SeriesDescription="Ax T2 FLAIR", SeriesNumber=2)
    write(tmp_path / "in/a", "P0", Modality="MR", SeriesDescription="scout", SeriesNumber=3)
    select = {
        "T1w": 'description ~ "t1.*mpr" and slices > 4',
        "FLAIR": 'description ~ "flair$" and series_number == 2',
    }
    plan = plan_dicoms(tmp_path / "in", select=select)
    assert [image.collection for image in plan.images] == ["T1w", "FLAIR"]
    (left,) = plan.report.lines
    assert (left.harmless, left.reasons) == (True, ("no selection takes it",))
    with pytest.raises(IngestError, match="takes none of 3 volumes"):
        plan_dicoms(tmp_path / "in", select={"T1w": "slices > 100"})
    with pytest.raises(ValueError, match="no column 'slice'"):
        plan_dicoms(tmp_path / "in", select={"T1w": "slice > 100"})


def test_sessions_are_distinguished_in_the_order_of_their_dates(tmp_path: Path) -> None:
    for uid, date in (("1.9", "20240101"), ("1.1", "20250101"), ("1.5", "20240601")):
        write(tmp_path / "in/p", "P0", StudyInstanceUID=uid, StudyDate=date, SeriesNumber=uid[-1])
    plan = plan_dicoms(tmp_path / "in")
    orders = {image.source.identity.study_uid: image.columns["study_order"]
              for image in plan.images}  # fmt: skip
    assert orders == {"1.9": 1, "1.5": 2, "1.1": 3}
    key = b"0123456789abcdef"
    keyed = plan.with_keyed_ids(key)
    sessions = {image.columns["study_key"] for image in keyed.images}
    assert len(sessions) == 3
    assert not any("1." in session for session in sessions)
    radi = ingest_plan(str(tmp_path / "store"), keyed).radi
    assert set(radi.CT.to_obs()["study_key"]) == sessions


def tilted(ds: Dataset, s: int) -> None:
    ds.ImagePositionPatient[1] += 0.8 * s


@pytest.mark.parametrize("verb", ["from_images", "append", "collection", "plan"])
def test_every_verb_takes_a_gantry_tilt(verb: str, tmp_path: Path) -> None:
    dicom_builder.write_series(tmp_path / "flat/a")
    dicom_builder.write_series(tmp_path / "in/b", edit=tilted)
    pairs = [(tmp_path / "in/b", "b")]
    verbs: dict[str, Callable[..., object]] = {
        "from_images": lambda **o: RadiObject.from_images(
            str(tmp_path / "new"), {"CT": pairs}, **o
        ),
        "append": lambda **o: base.append({"CT": pairs}, obs_meta=None, **o),
        "collection": lambda **o: base.CT.append(dicom_dirs=[(tmp_path / "in/b", "a")], **o),
        "plan": lambda **o: ingest_plan(str(tmp_path / "new"), plan_dicoms(tmp_path / "in", **o)),
    }
    base = RadiObject.from_images(str(tmp_path / "base"), {"CT": [(tmp_path / "flat/a", "a")]})
    if verb == "append":
        pairs[0] = (tmp_path / "in/b", "a")
    with pytest.raises(IngestError, match="tilt"):
        verbs[verb]()
    verbs[verb](allow_tilt=True)


def test_what_was_never_a_volume_stops_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in/a", "P0")
    write(tmp_path / "in/a", "P0", SeriesNumber=9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    outcome = ingest_plan(str(tmp_path / "store"), plan_dicoms(tmp_path / "in"))
    assert outcome.report.counts["accepted"] == 1
    assert [line.harmless for line in outcome.report.refused] == [True]
