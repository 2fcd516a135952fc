"""Throughput of feature extraction: batches of like length, against one input after another.

    python scripts/bench_features.py [--json] [--clips 48] [--repeats 3] [--width 128] [--layers 4]

Small models with random weights, of three kinds: text (BERT), sound (HuBERT, normalised so that padding is allowed) and
pictures (CLIP). The one-by-one side is the usual loop: prepare one text, one sound or one face, run the model in
inference mode on the same device, keep its features. Both sides read the same files, give the same features, which is
checked, and take turns. On a processor with one thread; on a GPU where there is one, in float32 and in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers

from mersuite.clip import Clip, Media
from mersuite.features.language import LanguageConfig, LanguageExtractor
from mersuite.features.picture import PictureConfig, PictureExtractor
from mersuite.features.speech import SpeechConfig, SpeechExtractor
from mersuite.media.audio import read_audio
from mersuite.media.face_arrays import read_faces

TOLERANCE = 2e-4
NUM_FACES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of input: its extractor, and the loop that gives the same features of one clip."""

    extractor: Any
    alone: Callable[[Clip], np.ndarray]


def main() -> None:
    """Runs all cases and prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--clips", type=int, default=48, help="clips of each kind")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side")
    parser.add_argument("--width", type=int, default=128, help="width of the models")
    parser.add_argument("--layers", type=int, default=4, help="layers of the models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        clips = write_clips(Path(folder), options.clips)
        sizes = {"hidden_size": options.width, "num_hidden_layers": options.layers, "num_attention_heads": 4}
        results = {
            name: measure(make(Path(folder), sizes, device), clips, options.repeats) for name, make in CASES.items()
        }
    if options.json:
        print(json.dumps({"device": device, **results}))
        return
    for name, item in results.items():
        print(
            f"{name} on {device}: one by one {item['alone_per_s']:.1f} clips/s, batched {item['batched_per_s']:.1f} "
            f"clips/s, ratio {item['ratio']:.2f}"
            + (f"; bfloat16 {item['bfloat16_per_s']:.1f} clips/s" if "bfloat16_per_s" in item else "")
        )


def write_clips(folder: Path, num_clips: int) -> list[Clip]:
    """Writes clips of 0.5 to 3 s of noise, 16 faces of noise, and a text of 3 to 24 characters."""
    rng = np.random.default_rng(0)
    clips = []
    for index in range(num_clips):
        sound, faces = folder / f"{index}.wav", folder / f"{index}.npy"
        with wave.open(str(sound), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            samples = 3000 * rng.standard_normal(round(16000 * rng.uniform(0.5, 3.0)))
            file.writeframes(samples.astype("<i2").tobytes())
        np.save(faces, rng.integers(0, 256, (NUM_FACES, 32, 32, 3), dtype=np.uint8))
        text = "".join(chr(0x4E00 + code) for code in rng.integers(0, 200, rng.integers(3, 25)))
        media = {"voice.speaker": Media(path=sound), "face.speaker": Media(path=faces), "text.speaker.zh": text}
        clips.append(Clip(clip_id=str(index), dataset="bench", media=media, groups={}))
    return clips


def text_case(folder: Path, sizes: dict[str, int], device: str) -> Case:
    """Makes a BERT over Chinese characters."""
    place = folder / "text"
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(0x4E00 + code) for code in range(200))]
    config = transformers.BertConfig(**sizes, intermediate_size=4 * sizes["hidden_size"], vocab_size=len(vocab))
    model = transformers.BertModel(config).eval()
    tokenizer = transformers.BertTokenizer(vocab={word: index for index, word in enumerate(vocab)})
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    model.to(device)

    def alone(clip: Clip) -> np.ndarray:
        inputs = tokenizer(clip.media["text.speaker.zh"], return_tensors="pt").to(device)
        states = model(**inputs, output_hidden_states=True).hidden_states
        return torch.stack(states)[-4:].sum(dim=0)[0, 1:-1].mean(dim=0).cpu().numpy()

    return Case(extractor=LanguageExtractor(LanguageConfig(model=str(place), precision="float32")), alone=alone)


def sound_case(folder: Path, sizes: dict[str, int], device: str) -> Case:
    """Makes a HuBERT with the norms of the large sizes."""
    place = folder / "sound"
    config = transformers.HubertConfig(
        **sizes,
        intermediate_size=4 * sizes["hidden_size"],
        conv_dim=(32,) * 7,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    model = transformers.HubertModel(config).eval()
    processor = transformers.Wav2Vec2FeatureExtractor()
    model.save_pretrained(place)
    processor.save_pretrained(place)
    model.to(device)

    def alone(clip: Clip) -> np.ndarray:
        sound = read_audio(clip.media["voice.speaker"].path)
        inputs = processor(sound, sampling_rate=16000, return_tensors="pt").input_values.to(device)
        states = model(inputs, output_hidden_states=True).hidden_states
        return torch.stack(states)[-4:].sum(dim=0)[0].mean(dim=0).cpu().numpy()

    return Case(extractor=SpeechExtractor(SpeechConfig(model=str(place), precision="float32")), alone=alone)


def picture_case(folder: Path, sizes: dict[str, int], device: str) -> Case:
    """Makes a CLIP vision tower over 32 x 32 pixels."""
    place = folder / "picture"
    config = transformers.CLIPVisionConfig(
        **sizes, intermediate_size=4 * sizes["hidden_size"], image_size=32, patch_size=8, projection_dim=64
    )
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model.save_pretrained(place)
    processor.save_pretrained(place)
    model.to(device)

    def alone(clip: Clip) -> np.ndarray:
        faces = read_faces(clip.media["face.speaker"].path, channel_order="bgr")
        rows = [
            model(processor(face, return_tensors="pt")["pixel_values"].to(device)).image_embeds[0].cpu()
            for face in faces
        ]
        return torch.stack(rows).mean(dim=0).numpy()

    return Case(extractor=PictureExtractor(PictureConfig(model=str(place), precision="float32")), alone=alone)


CASES: dict[str, Callable[[Path, dict[str, int], str], Case]] = {
    "text": text_case,
    "sound": sound_case,
    "picture": picture_case,
}


@torch.inference_mode()
def measure(case: Case, clips: Sequence[Clip], repeats: int) -> dict[str, float]:
    """Times both sides in turn, after a first run of each whose features are compared."""
    stream = case.extractor.outputs()[0]
    ours = {clip_id: streams[stream].data[0] for clip_id, streams in case.extractor.extract(clips)}
    difference = max(float(np.abs(ours[clip.clip_id] - case.alone(clip)).max()) for clip in clips)
    if difference > TOLERANCE:
        raise RuntimeError(f"{stream}: batched features differ by {difference:.2g} from those one by one")
    alone_s, batched_s = [], []
    for _ in range(repeats):
        alone_s.append(seconds(lambda: [case.alone(clip) for clip in clips]))
        batched_s.append(seconds(lambda: list(case.extractor.extract(clips))))
    result = {
        "alone_per_s": len(clips) / statistics.median(alone_s),
        "batched_per_s": len(clips) / statistics.median(batched_s),
        "ratio": statistics.median(alone_s) / statistics.median(batched_s),
        "max_difference": difference,
    }
    if torch.cuda.is_available():
        half = type(case.extractor)(replace(case.extractor.config, precision="bfloat16"))
        half_s = [seconds(lambda: list(half.extract(clips))) for _ in range(repeats + 1)][1:]
        result["bfloat16_per_s"] = len(clips) / statistics.median(half_s)
    return result


def seconds(run: Callable[[], list[Any]]) -> float:
    """Times one run."""
    start = time.perf_counter()
    if not run():
        raise RuntimeError("nothing was extracted")
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
