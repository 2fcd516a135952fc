"""Features of tiny transformers models in folders, for video, sound and text, from the command line to scores."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from commands import ROOT, run_here

CPU = ("runtime.accelerator=cpu", "runtime.prepare_workers=1")
PLACES = ("track=cross", "config=recipe/cross_pretrained.yaml", "data.root=demo_mer", "store.path=store_mer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up clips, and three models in folders."""
    place = tmp_path_factory.mktemp("pretrained")
    write = runpy.run_path(str(ROOT / "tests" / "unit" / "features" / "tiny_models.py"))["write"]
    for name in ("hubert-base", "clip", "bert", "videomae"):
        write(name, place)
    fake = "fake track=cross out=demo_mer num_clips=18 max_clip_s=1.8 rate_hz=12 num_dialogues=3"
    assert run_here(fake.split(), place).status == 0
    return place


MODELS = (
    "features.voice.model=hubert-base",
    "features.face_speaker.model=clip",
    "features.face_listener.model=clip",
    "features.text.model=bert",
    "features.text.empty=zeros",
)
FILM = ("features.film.name=video_mae", "features.film.model=videomae", "features.film.stream=video")


def test_prepare_fit_and_predict_on_models_in_folders(folder: Path):
    done = run_here(["prepare", *PLACES, *MODELS, *FILM, *CPU, "json=true"], folder)
    assert done.status == 0, done.err
    streams = json.loads(done.out)["streams"]
    covered = {name: item["num_covered"] for name, item in streams.items()}
    assert covered == {
        "voice-UTT_speaker": 18,
        "face-UTT_speaker": 18,
        "face-UTT_listener": 6,
        "text-UTT_speaker_zh": 18,
        "videomae-UTT": 18,
    }
    fit = ["fit", *PLACES, *MODELS, *CPU, "run.dir=run", "cv.folds=2", "trainer.max_epochs=1"]
    done = run_here(fit, folder)
    assert done.status == 0, done.err
    metrics = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert {"listener", "own", "only_voice", "only_face", "only_text"} <= set(metrics)
    words = "predict ckpt=run data.root=demo_mer store.path=store_mer out=found.jsonl runtime.accelerator=cpu"
    done = run_here(words.split(), folder)
    assert done.status == 0 and "6 predictions of 2 models" in done.out, done.err


@pytest.mark.parametrize("lacking", ["preprocessor_config.json", "config.json"])
def test_a_model_folder_that_lacks_a_file_is_refused_before_any_work(folder: Path, lacking: str, tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (folder / "hubert-base").iterdir():
        if path.name != lacking:
            (broken / path.name).symlink_to(path)
    words = [*PLACES[:3], f"store.path={tmp_path / 'store'}", *MODELS[1:], f"features.voice.model={broken}", *CPU]
    done = run_here(["prepare", *words], folder)
    assert done.status == 2 and done.err.count("\n") == 1 and lacking in done.err
    assert not (tmp_path / "store").exists()
