from pathlib import Path

import pytest

from mersuite.errors import DataError
from mersuite.media.cut_off import refuse_cut_off


def box(name: bytes, content: bytes, *, length: int | None = None) -> bytes:
    return (len(content) + 8 if length is None else length).to_bytes(4, "big") + name + content


def riff(content: bytes, *, length: int | None = None) -> bytes:
    return b"RIFF" + (len(content) if length is None else length).to_bytes(4, "little") + content


def segment(content: bytes, size: bytes) -> bytes:
    header = b"\x1a\x45\xdf\xa3\x84" + b"abcd"
    return header + b"\x18\x53\x80\x67" + size + content


FTYP = box(b"ftyp", b"isom0000")
LONG_MDAT = (1).to_bytes(4, "big") + b"mdat" + (16 + 40).to_bytes(8, "big") + bytes(40)
WHOLE = {
    "mp4": FTYP + box(b"moov", bytes(30)) + box(b"mdat", bytes(50)),
    "mp4 with a long box": FTYP + LONG_MDAT + box(b"moov", bytes(30)),
    "mkv": segment(bytes(60), b"\xbc"),
    "mkv with a long size": segment(bytes(60), b"\x01" + (60).to_bytes(7, "big")),
    "wav": riff(b"WAVE" + bytes(60)),
    "avi in parts": riff(b"AVI " + bytes(60)) + riff(b"AVIX" + bytes(40)),
}
ODD = {
    "a box to the end of the file": FTYP + box(b"mdat", bytes(50), length=0),
    "bytes behind the last box": FTYP + box(b"mdat", bytes(50)) + b"\xff\xff\xff\xffnote here",
    "a stream in mkv": segment(bytes(60), b"\x01" + b"\xff" * 7),
    "a stream in wav": riff(b"WAVE" + bytes(60), length=0xFFFFFFFF),
    "a wav that was never closed": riff(b"WAVE" + bytes(60), length=0),
    "a wav without its last filling byte": riff(b"WAVE" + bytes(59), length=64),
    "another kind": b"ID3\x04" + b"\xff" * 100,
    "a few bytes": b"RI",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_passes_and_one_that_lacks_bytes_is_refused(tmp_path: Path, name: str):
    path = tmp_path / "f"
    path.write_bytes(WHOLE[name])
    refuse_cut_off(path, "copy it again")
    for missing in (2, 30):
        path.write_bytes(WHOLE[name][:-missing])
        with pytest.raises(
            DataError, match=rf"f: is cut off: it holds \d+ of at least {len(WHOLE[name])} bytes; copy it"
        ):
            refuse_cut_off(path, "copy it again")


@pytest.mark.parametrize("name", ODD)
def test_files_that_do_not_say_their_length_pass(tmp_path: Path, name: str):
    (tmp_path / "f").write_bytes(ODD[name])
    refuse_cut_off(tmp_path / "f", "copy it again")
    assert (tmp_path / "f").read_bytes() == ODD[name]
