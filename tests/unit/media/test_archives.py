from __future__ import annotations

from pathlib import Path

from mersuite.media.archives import archives_in


def test_archives_and_their_parts_are_found_and_nothing_else(tmp_path: Path) -> None:
    names = ["video.zip", "audio.tar.gz", "faces.7z.001", "notes.txt", "zip"]
    for name in names:
        (tmp_path / name).touch()
    found = archives_in((tmp_path, tmp_path / "absent"))
    assert [path.name for path in found] == ["audio.tar.gz", "faces.7z.001", "video.zip"]
