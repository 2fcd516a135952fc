"""Builds the wheel, installs it away from the checkout and uses it from an empty folder.

Run it with the project's own Python: `.venv/bin/python scripts/wheel_smoke.py`. The new environment borrows the
dependencies of the Python that runs this file, so nothing is downloaded; mersuite itself comes from the wheel only.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build_wheel(folder: Path) -> Path:
    """Builds the wheel into a folder and gives its path."""
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    (wheel,) = folder.glob("mersuite-*.whl")
    return wheel


def missing_from(wheel: Path) -> list[str]:
    """Names the files of the checkout that a user needs and the wheel lacks."""
    wanted = {"mersuite/py.typed", "tracks/py.typed"}
    for package in ("mersuite", "tracks"):
        wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
    for pattern in ("*/config.yaml", "*/sweep.yaml", "*/README.md"):
        wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "tracks").glob(pattern)}
    for path in (ROOT / "configs").rglob("*.yaml"):
        wanted.add("mersuite/_configs/" + path.relative_to(ROOT / "configs").as_posix())
    with zipfile.ZipFile(wheel) as archive:
        return sorted(wanted - set(archive.namelist()))


def install(wheel: Path, folder: Path, empty: Path) -> Path:
    """Installs the wheel into a new environment and gives the folder of its commands; `empty` is an empty folder."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)])
    site = run([str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]).strip()
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    origin = run([str(python), "-c", "import mersuite, tracks; print(mersuite.__file__, tracks.__file__)"], cwd=empty)
    if origin.count(str(folder)) != 2:
        raise SystemExit(f"the packages do not come from the wheel: {origin.strip()}")
    return folder / "bin"


def run(command: list[str], cwd: Path | None = None) -> str:
    """Runs a command and gives its stdout; ends this script with the command's own words when it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    words = " ".join([Path(command[0]).name, *command[1:]])
    print(f"{time.perf_counter() - start:6.2f} s  {words[:110]}")
    if done.returncode:
        raise SystemExit(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Builds, installs, uses."""
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        empty = temporary / "empty"
        empty.mkdir()
        wheel = build_wheel(temporary / "dist")
        missing = missing_from(wheel)
        if missing:
            raise SystemExit(f"the wheel lacks {len(missing)} files: {', '.join(missing)}")
        mersuite = str(install(wheel, temporary / "env", empty) / "mersuite")
        run([mersuite, "--help"], cwd=empty)
        listed = run([mersuite, "tracks"], cwd=empty)
        shipped = sorted(path.parent.name for path in (ROOT / "tracks").glob("*/track.py"))
        unlisted = [track for track in shipped if track not in listed]
        if unlisted:
            raise SystemExit(f"`mersuite tracks` does not list {', '.join(unlisted)}:\n{listed}")
        for track in shipped:
            run([mersuite, "config", f"track={track}"], cwd=empty)
        run([mersuite, "fake", "track=ps", "out=data", "num_subjects=2", "seed=0"], cwd=empty)
        run([mersuite, "check", "track=ps", "data.root=data"], cwd=empty)
        print(f"{wheel.name} works from an empty folder")


if __name__ == "__main__":
    main()
