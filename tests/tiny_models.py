"""Captioners of a few thousand random weights, as folders in transformers' format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PAD, UNKNOWN, START, END = range(4)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{number}" for number in range(4, 48)))
IMAGE_SIDE = 32

_VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": IMAGE_SIDE, "patch_size": 8,
}
_LANGUAGE = {
    "vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END,
}
_BERT = {**_LANGUAGE, "intermediate_size": 48, "max_position_embeddings": 96}


def blip() -> Any:
    """Return a tiny BLIP."""
    import transformers
    # As in Salesforce's own: a sentence ends with the separator, whatever eos_token_id says.
    text = {
        **_BERT, "eos_token_id": UNKNOWN, "sep_token_id": END, "encoder_hidden_size": 32,
        "projection_dim": 16,
    }
    config = transformers.BlipConfig(
        text_config=text, vision_config=_VISION, projection_dim=16, image_text_hidden_size=16
    )
    return _lively(transformers.BlipForConditionalGeneration, config)


def git() -> Any:
    """Return a tiny GIT."""
    import transformers
    config = transformers.GitConfig(vision_config=_VISION, **_BERT)
    return _lively(transformers.GitForCausalLM, config)


def blip2_opt() -> Any:
    """Return a tiny BLIP-2 with OPT."""
    text = {
        **_LANGUAGE, "model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32,
        "max_position_embeddings": 96,
    }
    return _blip2(text)


def blip2_t5() -> Any:
    """Return a tiny BLIP-2 with T5."""
    text = {
        "model_type": "t5", "vocab_size": len(WORDS), "d_model": 32, "d_kv": 16, "d_ff": 48,
        "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2, "bos_token_id": START,
        "pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD,
    }
    return _blip2(text)


def _blip2(text: dict[str, Any]) -> Any:
    import transformers
    reader = {
        "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "encoder_hidden_size": 32,
        "cross_attention_frequency": 1, "max_position_embeddings": 96,
    }
    config = transformers.Blip2Config(
        vision_config=_VISION, qformer_config=reader, text_config=text, num_query_tokens=4
    )
    return _lively(transformers.Blip2ForConditionalGeneration, config)


def _lively(kind: Any, config: Any) -> Any:
    """Build a model whose random weights are large enough that it does not say one word only."""
    torch.manual_seed(7)
    module = kind(config).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 or "query" in name:
                parameter.normal_(std=0.4)
    return module


KINDS: dict[str, Callable[[], Any]] = {
    "blip": blip, "git": git, "blip2-opt": blip2_opt, "blip2-t5": blip2_t5,
}


def save(module: Any, folder: Path, **how: Any) -> Path:
    """Save a captioner as its maker would publish it: weights, configuration, words, pixels."""
    module.save_pretrained(folder, safe_serialization=True, **how)
    square = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    pixels = {
        "image_processor_type": "BlipImageProcessor", "do_resize": True, "resample": 3,
        "size": square, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
    }
    if module.config.model_type == "git":
        pixels |= {
            "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": IMAGE_SIDE},
            "do_center_crop": True, "crop_size": square,
        }
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels), encoding="utf-8")
    words().save(str(folder / "tokenizer.json"))
    return folder


def words() -> Any:
    """Return a tokenizer that knows one token for each of WORDS."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(WORDS[:4]))
    return tokenizer


def favour(captioner: Any, *tokens: int) -> None:
    """Make a captioner prefer the first of these tokens, the second where that is forbidden."""

    def raise_score(_layer: Any, _inputs: Any, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        for place, token in enumerate(tokens):
            scores[..., token] += 4000 / 2**place
        return scores

    captioner.writer().get_output_embeddings().register_forward_hook(raise_score)
