"""Writes tiny models with random weights, and their processors and tokenizers, as transformers saves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

CHINESE = "今天天气真好我很高兴你怎么不来呢谢谢他她是的啊"
WORDS = "hello you are here so what is this we go now really".split()
LAYERS: Mapping[str, Any] = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4}
VISION = {**LAYERS, "intermediate_size": 48, "image_size": 32, "patch_size": 8}
SOUND = {
    **LAYERS,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
"""What sets the large HuBERT, wav2vec2 and WavLM apart: norms that padding does not touch, and one after all layers."""


def write(name: str, parent: Path) -> Path:
    """Writes a model into a folder of its own name, and gives the folder."""
    folder = parent / name
    torch.manual_seed(sum(map(ord, name)))
    model = _MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():  # random norms and biases too: an unused one must show
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if name.startswith(("bert", "roberta")):
        _write_tokenizer(name, folder)
    elif name.startswith("whisper"):
        transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)
    elif name.startswith(("hubert", "wav2vec2", "wavlm")):
        transformers.Wav2Vec2FeatureExtractor(return_attention_mask="large" in name).save_pretrained(folder)
    else:
        _write_image_processor(name, folder)
    return folder


def _write_image_processor(name: str, folder: Path) -> None:
    square = {"height": 32, "width": 32}
    if name.startswith("clip"):
        kind: Any = transformers.CLIPImageProcessorPil
        options: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": square}
    elif name == "dinov2":
        kind, options = transformers.BitImageProcessorPil, {"size": {"shortest_edge": 36}, "crop_size": square}
    elif name == "videomae":
        kind, options = transformers.VideoMAEImageProcessorPil, {"size": {"shortest_edge": 32}, "crop_size": square}
    elif name.startswith("blip2"):
        kind, options = transformers.BlipImageProcessorPil, {"size": square}
    else:
        kind, options = transformers.ViTImageProcessorPil, {"size": square}
    kind(**options).save_pretrained(folder)


def _write_tokenizer(name: str, folder: Path) -> None:
    if name == "bert":
        vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(CHINESE), *WORDS]
        transformers.BertTokenizer(vocab={word: index for index, word in enumerate(vocab)}).save_pretrained(folder)
        return
    from tokenizers import ByteLevelBPETokenizer

    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(
        [" ".join(WORDS), CHINESE], vocab_size=330, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    learner.save_model(str(folder))
    transformers.RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)


def _clip() -> Any:
    text = {**LAYERS, "intermediate_size": 48, "vocab_size": 50}
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config={**VISION, "projection_dim": 24}, projection_dim=24)
    )


def _blip2() -> Any:
    vision = {**VISION, "patch_size": 14, "image_size": 56}
    former = {**LAYERS, "intermediate_size": 48, "encoder_hidden_size": 32, "vocab_size": 50}
    text = {"model_type": "opt", **LAYERS, "ffn_dim": 48, "vocab_size": 50, "word_embed_proj_dim": 32}
    config = transformers.Blip2Config(vision_config=vision, qformer_config=former, text_config=text, num_query_tokens=4)
    return transformers.Blip2Model(config)


def _video_mae() -> Any:
    return transformers.VideoMAEModel(
        transformers.VideoMAEConfig(**VISION, num_frames=16, tubelet_size=2, use_mean_pooling=False)
    )


def _whisper() -> Any:
    return transformers.WhisperModel(
        transformers.WhisperConfig(
            d_model=32,
            encoder_layers=3,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_mel_bins=20,
            max_source_positions=100,
            max_target_positions=16,
            vocab_size=60,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        )
    )


_MODELS: Mapping[str, Callable[[], Any]] = {
    "clip": _clip,
    "clip-vision": lambda: transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**VISION, projection_dim=24)
    ),
    "vitmae": lambda: transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(**VISION, decoder_hidden_size=32, decoder_intermediate_size=48)
    ),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**VISION)),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**VISION)),
    "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)),
    "blip2": _blip2,
    "videomae": _video_mae,
    "hubert-base": lambda: transformers.HubertModel(transformers.HubertConfig(**SOUND)),
    "hubert-large": lambda: transformers.HubertModel(transformers.HubertConfig(**SOUND, **LARGE)),
    "wav2vec2-base": lambda: transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**SOUND)),
    "wav2vec2-large": lambda: transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**SOUND, **LARGE)),
    "wav2vec2-conformer": lambda: transformers.Wav2Vec2ConformerModel(
        transformers.Wav2Vec2ConformerConfig(**SOUND, feat_extract_norm="layer", conv_bias=True)
    ),
    "wavlm-base": lambda: transformers.WavLMModel(transformers.WavLMConfig(**SOUND)),
    "wavlm-large": lambda: transformers.WavLMModel(transformers.WavLMConfig(**SOUND, **LARGE)),
    "whisper": _whisper,
    "bert": lambda: transformers.BertModel(
        transformers.BertConfig(**LAYERS, intermediate_size=48, vocab_size=60, max_position_embeddings=40)
    ),
    "roberta": lambda: transformers.RobertaModel(
        transformers.RobertaConfig(
            **LAYERS, intermediate_size=48, vocab_size=340, max_position_embeddings=42, pad_token_id=1
        )
    ),
}
