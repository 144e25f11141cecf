"""Tables of text: nothing altered, odd files read, and what was odd is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from radiobject.exceptions import IngestError
from radiobject.formats.delimited import read_table


def put(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def columns(path: Path, **options) -> dict:
    frame = read_table(path, **options).frame
    return {
        n: [
            None if v is None or v != v else v
            for v in frame[n].astype(object).where(frame[n].notna(), None)
        ]
        for n in frame
    }


def test_cells_are_what_they_were(tmp_path):
    path = put(
        tmp_path,
        "id,site,age,weight,grade,ok,code,huge\n"
        "NA,001,44,70.5,None,true,NA,99999999999999999999\nnull,010,,,n/a,false,1,2\n",
    )
    found = columns(path, text={"id"})
    assert found == {
        "id": ["NA", "null"],
        "site": ["001", "010"],
        "age": [44, None],
        "weight": [70.5, None],
        "grade": ["None", None],
        "ok": [True, False],
        "code": ["NA", "1"],
        "huge": ["99999999999999999999", "2"],
    }
    assert (
        "column 'code' is text because of 'NA'; a missing value is 'n/a'"
        in (read_table(path).remarks[0])
    )


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("id;näme\n1;ö\n", "t.csv", "semicolons"),
        ("id\tnäme\n1\tö\n", "t.csv", "tabs"),
        ("id,näme\n1,ö\n".encode("utf-16"), "t.csv", "UTF-16"),
        ("id,näme\n1,ö\n".encode("utf-16-le"), "t.csv", "UTF-16"),
        ("\ufeffid,näme\n1,ö\n".encode("utf-16-be"), "t.csv", "UTF-16"),
        ("id,näme\n1,ö\n".encode("utf-16-be"), "t.csv", "UTF-16"),
        ("id,näme\r1,ö\r", "t.csv", None),
        ("id,näme\n1,ö\n".encode("latin-1"), "t.csv", "Latin-1"),
        ("\ufeffid,näme\r\n1,ö\r\n", "t.csv", None),
        ("id\tnäme\n1\tö\n", "t.tsv", None),
        ("id,näme\n1,ö\n", "t.tsv", "separated by commas, not by tabs"),
    ],
)
def test_encodings_and_separators(tmp_path, content, name, said):
    path = put(tmp_path, content, name)
    assert columns(path) == {"id": [1], "näme": ["ö"]}
    remarks = read_table(path).remarks
    assert (not remarks) if said is None else (len(remarks) == 1 and said in remarks[0])


def test_rows_that_do_not_fit(tmp_path):
    path = put(tmp_path, "a\tb\t\ta\n1\t2\t3\t4\n5\n\n6\t7\t8\t9\t10\n11\t'\"x\n", "t.tsv")
    table = read_table(path)
    assert table.frame["a"].tolist() == [1, 5, 11]
    assert table.frame["b"].tolist() == ["2", None, "'\"x"]
    assert [r.split(": ", 1)[1] for r in table.remarks] == [
        "line 3 has 1 cells, expected 4; filled up",
        "line 5 has 5 cells, expected 4; left out",
        "line 6 has 2 cells, expected 4; filled up",
        "column 3 has no name; left out",
        "column 'a' is there twice; the first is read",
    ]


def test_a_quote_in_a_tsv_is_a_letter_and_in_a_csv_it_is_none(tmp_path):
    assert columns(put(tmp_path, 'a\tb\n"x\ty"\n', "t.tsv")) == {"a": ['"x'], "b": ['y"']}
    assert columns(put(tmp_path, 'a,b\n"x,y",z\n')) == {"a": ["x,y"], "b": ["z"]}


def test_names_that_no_column_can_have(tmp_path):
    table = read_table(put(tmp_path, "a,b\0c, ,d\n1,2,3,4\n"))
    assert list(table.frame) == ["a", "d"]
    assert len(table.remarks) == 2


def test_text_that_is_damaged_is_named_with_its_file(tmp_path):
    for content in (b"\xff\xfea", b"\xfe\xff\0a\0"):
        with pytest.raises(IngestError, match=r"t\.csv: damaged utf-16 text"):
            read_table(put(tmp_path, content))


def test_what_is_no_table(tmp_path):
    with pytest.raises(IngestError, match="damaged table"):
        read_table(put(tmp_path, ""))
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.csv")


def test_a_table_that_excel_for_mac_wrote(tmp_path):
    path = put(tmp_path, "id,name\rs1,Müller\rs2,Zoë\r".encode("mac_roman"))
    assert columns(path) == {"id": ["s1", "s2"], "name": ["Müller", "Zoë"]}
    assert "read as Mac Roman" in read_table(path).remarks[0]
    assert columns(put(tmp_path, "id;x\ra;1,2,3,4\r")) == {"id": ["a"], "x": ["1,2,3,4"]}


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_excels_own_line_on_what_parts_the_cells_is_no_row(tmp_path, end):
    table = read_table(put(tmp_path, end.join(["sep=;", "id;text", "a;1,5", "b", ""])))
    assert list(table.frame["id"]) == ["a", "b"]
    assert list(table.frame["text"].dropna()) == ["1,5"]
    assert table.remarks[-1].endswith("line 4 has 1 cells, expected 2; filled up")
