from pathlib import Path

import pytest

from mersuite.whole_files import whole_file


def test_a_file_gets_its_name_when_all_has_been_written(tmp_path: Path):
    path = tmp_path / "new" / "deep" / "a.bin"
    with whole_file(path) as stream:
        stream.write(b"one")
        assert not path.exists()
        (part,) = path.parent.iterdir()
        assert part.name.startswith(".a.bin.")
        assert part.suffix == ".part"
    assert [each.name for each in path.parent.iterdir()] == ["a.bin"]
    assert path.read_bytes() == b"one"


def test_a_failure_leaves_what_was_there_before_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="disk full"), whole_file(path) as stream:
        stream.write(b"half")
        raise OSError("disk full")
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]
    assert path.read_bytes() == b"before"
