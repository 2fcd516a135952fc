from pathlib import Path

import pytest

from mersuite.errors import DataError
from mersuite.media.csv_lines import read_csv_lines


def test_cells_are_stripped_and_blank_lines_left_out_of_a_file_with_byte_order_mark(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfid, name\r\n\r\n , \r\n1,"a,b"\r\n')
    assert read_csv_lines(path) == [(1, ["id", "name"]), (4, ["1", "a,b"])]


def test_empty_file_has_no_lines(tmp_path: Path):
    (tmp_path / "t.csv").touch()
    assert read_csv_lines(tmp_path / "t.csv") == []


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_csv_lines(tmp_path / "none.csv")


@pytest.mark.parametrize("content", ["id,name\n1,我\n".encode("gbk"), b"PK\x03\x04\xff\xfe", b'a,"b\n'])
def test_file_that_is_no_utf8_csv_is_refused_with_its_cure(tmp_path: Path, content: bytes):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv: not a csv file in UTF-8 .*save it as UTF-8"):
        read_csv_lines(tmp_path / "t.csv")
