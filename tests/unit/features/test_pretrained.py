from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clip_sources import face_clip, made

from mersuite import catalog
from mersuite.clip import Clip
from mersuite.errors import ConfigError, DataError
from mersuite.features import batched, feature_rows, pretrained
from mersuite.features.language import LanguageConfig, LanguageExtractor
from mersuite.features.picture import PictureConfig, PictureExtractor
from mersuite.features.speech import SpeechConfig, SpeechExtractor
from mersuite.prepare import FeatureReader, prepare, stream_fingerprints

PARTS = ("picture", "eva_clip", "video_mae", "speech", "language")


@pytest.fixture
def copied(models, tmp_path: Path):
    """Gives a copy of a tiny model's folder that a test may spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(models(name), tmp_path / name))

    return copy


def picture(folder: Path | str, **knobs) -> PictureExtractor:
    return PictureExtractor(PictureConfig(model=str(folder), **knobs))


def language(folder: Path) -> LanguageExtractor:
    return LanguageExtractor(LanguageConfig(model=str(folder)))


def test_the_parts_are_extractors_and_what_they_share_is_none():
    names = catalog.names("extractor")
    assert set(PARTS) <= set(names)
    assert not {"pretrained", "batched", "feature_rows", "picture_input"} & set(names)


# ---- refused before any work


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("vit", ["preprocessor_config.json"], r"vit has no processor: need preprocessor_config.json"),
        ("vit", ["config.json"], r"vit has no config.json"),
        ("vit", ["model.safetensors"], r"vit has no weights: need model.safetensors or pytorch_model.bin"),
        ("bert", ["tokenizer.json", "vocab.txt"], r"bert has no tokenizer: need tokenizer.json or vocab.txt"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_by_name(copied, name, files, message):
    folder = copied(name)
    for file in files:
        (folder / file).unlink(missing_ok=True)
    part = language(folder) if name == "bert" else picture(folder)
    with pytest.raises(ConfigError, match=message):
        part.survey([])


def test_a_sound_model_without_its_processor_is_refused(copied):
    folder = copied("hubert-base")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"hubert-base has no processor: need preprocessor_config.json"):
        SpeechExtractor(SpeechConfig(model=str(folder))).survey([])


def test_broken_files_are_refused(copied):
    folder = copied("vit")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"vit: its processor cannot be loaded"):
        picture(folder).survey([])
    (folder / "config.json").write_text(json.dumps({"model_type": "no_such_kind"}))
    with pytest.raises(ConfigError, match=r"vit: its configuration cannot be loaded .*no_such_kind"):
        picture(folder).survey([])


def test_a_hub_id_that_cannot_be_reached_asks_for_a_folder():
    for part in (picture("owner/no-such-model"), language(Path("owner/no-such-model"))):
        with pytest.raises(ConfigError, match=r"owner/no-such-model: its configuration cannot .*; give a folder that"):
            part.survey([])


@pytest.mark.parametrize("model", ["/no/such/folder", "./models/vit", "a/b/c"])
def test_a_folder_that_does_not_exist_is_no_hub_id(model):
    with pytest.raises(ConfigError, match=r"model: the folder .* does not exist; give a folder, or a hub id"):
        picture(model).survey([])


def test_a_text_model_is_no_image_encoder(models):
    with pytest.raises(ConfigError, match=r"bert is of the kind bert, which reads input_ids; give an image encoder"):
        picture(models("bert")).survey([])


def test_weights_that_are_missing_are_refused_instead_of_random(copied, tmp_path, rng):
    from safetensors.torch import load_file, save_file

    folder = copied("vit")
    weights = load_file(folder / "model.safetensors")
    lost = sorted(key for key in weights if "pooler" not in key)[0]
    save_file(
        {key: item for key, item in weights.items() if key != lost}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(DataError, match=r"vit: 1 weights are missing or of another size, such as "):
        made(picture(folder), [face_clip(tmp_path, "clip", 2, rng)])


def test_a_broken_weights_file_is_refused(copied, tmp_path, rng):
    folder = copied("vit")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises((ConfigError, DataError), match="vit"):
        made(picture(folder), [face_clip(tmp_path, "clip", 2, rng)])


def test_without_transformers_it_says_what_to_install(monkeypatch, models):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ConfigError, match=r"pretrained models need the package 'transformers'; pip install 'mersuite\[llm"
    ):
        picture(models("vit")).survey([])


# ---- files decide


def test_digest_changes_with_weights_processor_and_configuration_and_not_with_the_place(copied, models, tmp_path):
    before = picture(models("vit")).state_digest()
    folder = copied("vit")
    assert picture(folder).state_digest() == before
    (folder / "README.md").write_text("of no consequence")
    assert picture(folder).state_digest() == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    changed = picture(folder).state_digest()
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, "image_mean": [0.1, 0.1, 0.1]}))
    assert len({before, changed, picture(folder).state_digest()}) == 3


def test_weights_that_are_loaded_decide_beside_others_that_are_not(copied, tmp_path, rng):
    from safetensors.torch import load_file

    folder = copied("vit")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    clip = face_clip(tmp_path, "clip", 1, rng)
    first, rows = picture(folder).state_digest(), made(picture(folder), [clip])["clip"]["vit-UTT_speaker"].data
    torch.save({key: item * 1.1 for key, item in weights.items()}, folder / "pytorch_model.bin")
    assert not np.allclose(made(picture(folder), [clip])["clip"]["vit-UTT_speaker"].data, rows)
    assert picture(folder).state_digest() != first


@pytest.fixture
def hub(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Gives a way to put commits of a tiny model into a hub's cache, which is read without a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(model: str, name: str, commit: str) -> str:
        folder = tmp_path / "hub" / f"models--{model.replace('/', '--')}"
        shutil.copytree(models(name), folder / "snapshots" / commit)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
        return model

    return put


def test_models_of_the_hub_and_their_commits_enter_the_fingerprint(hub, tmp_path, rng):
    clips = [face_clip(tmp_path, "clip", 2, rng)]

    def key(model: str, **knobs) -> str:
        extractors = {"x": picture(model, output="face", **knobs)}
        return stream_fingerprints(clips, extractors, tmp_path / "store")[("clip", "face-UTT_speaker")].fingerprint

    first, other = hub("me/tiny", "vit", "a" * 40), hub("me/other", "dinov2", "b" * 40)
    before = key(first)
    assert before != key(other)
    hub("me/tiny", "vit", "c" * 40)
    assert key(first) != before == key(first, revision="a" * 40)
    assert made(picture(first), clips)["clip"]["tiny-UTT_speaker"].data.shape == (1, 32)


def test_a_cache_of_the_hub_that_names_no_commit_is_refused(hub, tmp_path, monkeypatch):
    model = hub("me/tiny", "vit", "a" * 40)
    monkeypatch.setattr("transformers.utils.cached_file", lambda *_, **__: str(tmp_path / "config.json"))
    with pytest.raises(ConfigError, match=r"me/tiny: the cache of the hub does not say which commit .*; give a folder"):
        picture(model).state_digest()


def test_changed_weights_are_loaded_again_in_the_same_process(copied, tmp_path, rng):
    from safetensors.torch import load_file, save_file

    clip = face_clip(tmp_path, "clip", 2, rng)
    folder = copied("vit")
    before = made(picture(folder), [clip])["clip"]["vit-UTT_speaker"].data
    weights = load_file(folder / "model.safetensors")
    save_file({key: item * 1.1 for key, item in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    assert not np.allclose(made(picture(folder), [clip])["clip"]["vit-UTT_speaker"].data, before)


def test_a_model_is_loaded_once_a_process_frozen_and_stays_out_of_the_pickle(models, tmp_path, rng, monkeypatch):
    pretrained.load_model.cache_clear()
    clip = face_clip(tmp_path, "clip", 2, rng)
    part = picture(models("vit"))
    first = made(part, [clip])["clip"]["vit-UTT_speaker"].data
    assert len(pickle.dumps(part)) < 20_000 < (models("vit") / "model.safetensors").stat().st_size
    again = pickle.loads(pickle.dumps(part))
    assert np.array_equal(made(again, [clip])["clip"]["vit-UTT_speaker"].data, first)
    made(picture(models("vit"), tokens="cls"), [clip])
    assert pretrained.load_model.cache_info().misses == 1
    source = pretrained.find_source(str(models("vit")))
    model = pretrained.load_model(source, part.state_digest(), "AutoModel", "cpu", ())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_prepare_stores_features_and_makes_them_again_for_other_weights(copied, tmp_path, rng, num_workers):
    clips = [face_clip(tmp_path, f"clip{index}", 3 + index, rng) for index in range(5)]
    folder = copied("vit")

    def prepared() -> tuple[int, np.ndarray]:
        part = {"faces": picture(folder)}
        coverage = prepare(clips, part, tmp_path / "store", num_workers=num_workers, progress=False)
        reader = FeatureReader.open(tmp_path / "store", clips, part)
        return coverage.num_computed, np.concatenate([reader.get(c.clip_id, "vit-UTT_speaker").data for c in clips])

    num_first, first = prepared()
    expected = [streams["vit-UTT_speaker"].data for streams in made(picture(folder), clips).values()]
    np.testing.assert_allclose(first, np.concatenate(expected), atol=1e-6)
    assert (num_first, prepared()[0]) == (5, 0)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert prepared()[0] == 5


# ---- devices and memory


@pytest.mark.parametrize(
    ("accelerator", "num_gpus", "process", "device"),
    [
        ("auto", 0, "MainProcess", "cpu"),
        ("cpu", 4, "SpawnProcess-2", "cpu"),
        ("auto", 4, "MainProcess", "cuda:0"),
        ("auto", 2, "SpawnProcess-1", "cuda:0"),
        ("gpu", 2, "SpawnProcess-2", "cuda:1"),
        ("cuda", 2, "SpawnProcess-3", "cuda:0"),
    ],
)
def test_workers_take_turns_at_the_gpus(monkeypatch, accelerator, num_gpus, process, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(name=process))
    assert batched.choose_device(accelerator) == device


@pytest.mark.parametrize("accelerator", ["gpu", "tpu"])
def test_an_accelerator_that_is_not_there_is_refused(monkeypatch, accelerator):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"runtime.accelerator: {accelerator} is not available for extraction here"):
        batched.choose_device(accelerator)


@pytest.mark.parametrize(
    ("error", "device", "batch_size", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            "cpu",
            32,
            r"out of memory on cpu: lower batch_size of this .*32",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "cpu", 1, "out of memory on cpu: take a smaller"),
    ],
)
def test_lack_of_memory_says_which_option_to_lower(error, device, batch_size, message):
    with pytest.raises(DataError, match=message), batched.answering(device, "auto", batch_size):
        raise error


def test_other_runtime_errors_are_not_taken_for_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), batched.answering("cpu", "auto", 8):
        raise RuntimeError("shapes do not fit")


def test_an_extractor_names_the_clips_in_work_and_its_batch_size(models, tmp_path, rng, monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mersuite.features.picture._vectors", fail)
    with pytest.raises(DataError, match=r"lower batch_size of this extractor \(it is 4\)"):
        made(picture(models("vit"), batch_size=4), [face_clip(tmp_path, "clip", 2, rng)])


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_precision_on_a_processor_is_float32_unless_it_is_asked_for(precision, dtype):
    with batched.answering("cpu", precision, 1):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
        assert torch.is_inference_mode_enabled()


# ---- rows


def test_pooling_keeps_the_mean_and_handles_uneven_rates(rng):
    rows = rng.standard_normal((37, 3)).astype(np.float32)
    pooled = feature_rows.pool_rows(rows, 25.0, 3.0)
    bounds = [np.flatnonzero((np.arange(37) + 0.5) / 25 * 3 // 1 == part) for part in range(5)]
    np.testing.assert_allclose(pooled, [rows[part].mean(axis=0) for part in bounds], atol=1e-6)
    np.testing.assert_array_equal(feature_rows.pool_rows(rows, 25.0, 25.0), rows)


def test_estimate_asks_only_a_few_clips():
    clips = [Clip(clip_id=str(index), dataset="d", media={}, groups={}) for index in range(1000)]
    asked: list[str] = []

    def rows(clip: Clip) -> float:
        asked.append(clip.clip_id)
        return 100.0

    assert feature_rows.estimate(clips, 1024, ("utt", "fra"), rows) == 1000 * 1024 * 4 * 101
    assert len(asked) == 8
    assert (asked[0], asked[-1]) == ("0", "999")
    assert feature_rows.estimate(clips, 1024, ("utt",), rows) == 1000 * 1024 * 4
    assert feature_rows.estimate([], 1024, ("fra",), rows) == 0
