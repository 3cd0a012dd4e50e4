"""Train the two bundled demo models, CLIP and BLIP, on drawn pictures from a seed."""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import string
import textwrap
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import draw_pictures
import evaluate_demo
import numpy as np
import torch
from draw_pictures import Scene, Wording
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from clip_interrogator_ext.models.torchvision_operators import import_torchvision
from clip_interrogator_ext.vocabulary.lists import load_categories

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZE = 96
PATCH = 12
PATCHES = SIZE // PATCH
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
PICTURES = 32_000
CLIP_STEPS = 1_200
BLIP_STEPS = 1_320
BATCH = 128
HALF = BATCH // 2
NEGATIVES = 128
WARM_UP = 200
FADE_OUT = 500
SECOND_SEED = 30_000

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
}

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
PAD, UNKNOWN, SEPARATOR, BEGIN = 0, 1, 3, 5
CAPTION_LENGTH = 20


# --- Pictures ------------------------------------------------------------------------------


def training_picture(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene at some size and shrink it in some way, as pictures come in practice.

    With it comes how much of each of the BLIP's patches the subjects cover, from 0 to 255.
    """
    chance = random.Random(scene.seed + 1)
    picture, mask = draw_pictures.draw_with_mask(scene, chance.choice((144, 176, 208, 256)))
    if chance.random() < 0.3:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=chance.randint(60, 95))
        picture = Image.open(buffer)
    if chance.random() < 0.4:
        cut = picture.width * 0.06
        left, top = chance.uniform(0, cut), chance.uniform(0, cut)
        side = picture.width - chance.uniform(max(left, top), cut)
        edges = (left, top, min(side + left, picture.width), min(side + top, picture.width))
        box = tuple(round(edge) for edge in edges)
        picture, mask = picture.crop(box), mask.crop(box)
    way = chance.choices(
        (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS), (6, 1, 1)
    )[0]
    covered = mask.resize((PATCHES, PATCHES), Image.Resampling.BOX)
    return np.asarray(picture.resize((SIZE, SIZE), way)), np.asarray(covered)


def draw_all(scenes: Sequence[Scene]) -> tuple[np.ndarray, np.ndarray]:
    """Draw all scenes with two processes into one array of bytes, and another of what's covered."""
    pictures = np.empty((len(scenes), SIZE, SIZE, 3), dtype=np.uint8)
    covered = np.empty((len(scenes), PATCHES, PATCHES), dtype=np.uint8)
    with ProcessPoolExecutor(2) as pool:
        drawn = pool.map(training_picture, scenes, chunksize=64)
        for index, pair in enumerate(tqdm(drawn, "drawing", len(scenes), mininterval=5)):
            pictures[index], covered[index] = pair
    return pictures, covered


def augmented(pictures: np.ndarray, generator: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """Normalize a batch; flip, shift and brighten it at random; say which ones are flipped."""
    flips = generator.random(len(pictures)) < 0.5
    pictures = pictures.copy()
    pictures[flips] = pictures[flips, :, ::-1]
    pictures = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    left, top = generator.integers(0, 5, 2).tolist()
    pictures = pictures[:, top : top + SIZE, left : left + SIZE].astype(np.float32)
    gains = generator.uniform(0.93, 1.07, (len(pictures), 1, 1, 1)).astype(np.float32)
    mean, deviation = np.float32(MEAN), np.float32(DEVIATION)
    pictures *= gains / 255 / deviation
    pictures -= mean / deviation
    # Colours stay the innermost axis in memory, which convolutions are fastest with.
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), flips


def batches(number: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Go through all indexes in a new order each time, a batch at a time."""
    order = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        if len(order) < BATCH:
            order = generator.permutation(number)
        yield order[:BATCH]
        order = order[BATCH:]


class Trainer:
    """Leads a model down its loss, at a rate that rises, stays, and falls to nothing."""

    def __init__(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], steps: int
    ) -> None:
        def factor(step: int) -> float:
            return min(1.0, (step + 1) / WARM_UP, (steps - step) / FADE_OUT)

        self.model = model
        self.optimizers = optimizers
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(one, factor) for one in optimizers]

    def step(self, loss: Tensor) -> None:
        """Change the weights once."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for stepped in (*self.optimizers, *self.schedules):
            stepped.step()


def in_sixteen_bits() -> torch.autocast:
    """Multiply in bfloat16 where that takes half the time, and costs these models nothing.

    Processors without AVX-512 take many times as long for it.
    """
    has_it = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_it)


def half_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copy all weights, those with a fraction rounded to 16 bits."""
    return {
        name: (tensor.detach().half() if tensor.is_floating_point() else tensor.detach())
        .clone()
        .contiguous()
        for name, tensor in model.state_dict().items()
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a settings file."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- CLIP ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhraseGroups:
    """The drawn phrases, the group that each is told apart within, and what each one states."""

    phrases: tuple[str, ...]
    facts: tuple[str, ...]
    groups: tuple[int, ...]


def phrase_groups() -> PhraseGroups:
    """Collect the phrases of all properties; flavors are one more group."""
    rows: list[tuple[str, str, int]] = []
    tables = [*draw_pictures.phrase_tables().values(), list(draw_pictures.FLAVORS)]
    for group, table in enumerate(tables):
        facts = list(draw_pictures.SUBJECTS) if group == 0 else table
        rows += [(phrase, fact, group) for phrase, fact in zip(table, facts, strict=True)]
    phrases, facts, groups = zip(*rows, strict=True)
    return PhraseGroups(phrases, facts, groups)


def undrawn_phrases() -> dict[str, list[str]]:
    """List what the word lists contain and no picture shows, mediums apart from the rest.

    A phrase of another list that shares a word with a drawn one ("foggy", "night sky") may well
    fit a picture, so it's left out.
    """
    drawn = {phrase.casefold() for phrase in phrase_groups().phrases}
    drawn_words = set(" ".join(drawn).split()) - {"a", "an", "in", "on", "at", "the", "and", "art"}
    found: dict[str, list[str]] = {"mediums": [], "others": []}
    for name, category in load_categories().items():
        for phrase in category.phrases:
            words = phrase.casefold().replace("-", " ").split()
            # The first letters stand for a word's other forms.
            alike = any(word[:5] == other[:5] for word in words for other in drawn_words)
            if name == "mediums" and phrase.casefold() not in drawn:
                found["mediums"].append(phrase)
            elif name != "mediums" and not alike:
                found["others"].append(phrase)
    return found


def corrupted(scene: Scene, undrawn: dict[str, list[str]], chance: random.Random) -> Wording:
    """Describe a scene wrongly in one respect, or with one phrase that no picture shows."""
    kind = chance.choice(("subject", "colour", "count", "place", "light", "medium", "flavor",
                          "undrawn", "undrawn"))  # fmt: skip
    truth = draw_pictures.facts(scene)
    other = draw_pictures.random_scene(chance)
    changed = {
        "subject": scene.subject, "colour": scene.colour, "count": scene.count,
        "place": scene.place, "light": scene.light, "medium": scene.medium,
    }  # fmt: skip
    phrases = list(scene.flavors)
    lie = "undrawn"
    if kind in changed and (kind != "colour" or scene.shows_colour):
        changed[kind] = getattr(other, kind)
        lie = draw_pictures.COUNTS[other.count] if kind == "count" else changed[kind]
    elif kind == "flavor":
        lie = chance.choice(list(draw_pictures.FLAVORS))
        phrases.insert(chance.randint(0, len(phrases)), lie)
    else:
        source = undrawn[chance.choice(("mediums", "others", "others"))]
        phrases.insert(chance.randint(0, len(phrases)), chance.choice(source))
    colour = changed["colour"] if scene.shows_colour else ""
    noun = draw_pictures.noun_phrase(changed["subject"], changed["count"], colour)
    first = f"{noun} {changed['place']} {changed['light']}"
    return Wording(", ".join([first, changed["medium"], *phrases]), truth | {lie})


class FactTable:
    """Turns sets of facts into rows of zeros and ones."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        names = sorted({fact for scene in scenes for fact in draw_pictures.facts(scene)})
        self.columns = {name: column for column, name in enumerate([*names, "undrawn"])}

    def rows(self, sets: Sequence[frozenset[str]]) -> Tensor:
        """Make one row for each set of facts."""
        table = torch.zeros(len(sets), len(self.columns))
        for row, facts in enumerate(sets):
            table[row, [self.columns[fact] for fact in facts]] = 1
        return table


def encode_short(model: Any, tokens: Tensor) -> Tensor:
    """Encode texts without the padding after the longest: what follows the end isn't read."""
    length = int(tokens.argmax(dim=1).max()) + 1
    tokens = tokens[:, :length]
    states = model.token_embedding(tokens) + model.positional_embedding[:length]
    states = model.transformer(states, attn_mask=model.attn_mask[:length, :length])
    ends = model.ln_final(states)[torch.arange(len(tokens)), tokens.argmax(dim=1)]
    return functional.normalize(ends @ model.text_projection, dim=1)


def pairing_loss(scores: Tensor, fits: Tensor) -> Tensor:
    """Ask that row i scores highest in column i, leaving out other columns that fit as well."""
    own = torch.zeros_like(fits)
    own.fill_diagonal_(1)
    targets = torch.arange(len(scores))
    return functional.cross_entropy(scores.masked_fill(fits & ~own, -math.inf), targets)


def phrase_loss(scores: Tensor, fits: Tensor, others: Tensor, groups: Tensor) -> Tensor:
    """Ask that fitting phrases score above the unfitting ones of their group and all others."""
    losses = []
    for group in groups.unique():
        within = groups == group
        wrong = torch.cat([scores[:, within].masked_fill(fits[:, within], -math.inf), others], 1)
        right = functional.softplus(wrong.logsumexp(dim=1, keepdim=True) - scores[:, within])
        losses.append((right * fits[:, within]).sum() / fits[:, within].sum().clamp(min=1))
    return torch.stack(losses).mean()


def lesson_wordings(
    batch: Sequence[Scene], undrawn: dict[str, list[str]], chance: random.Random
) -> list[Wording]:
    """Describe every scene wholly, the first half also partly, the second half also wrongly."""
    return [
        *(draw_pictures.describe(scene) for scene in batch),
        *(draw_pictures.describe_partly(scene, chance) for scene in batch[:HALF]),
        *(corrupted(scene, undrawn, chance) for scene in batch[HALF:]),
    ]


def some_undrawn(tokens: dict[str, Tensor], generator: np.random.Generator) -> Tensor:
    """Pick the tokens of undrawn phrases, a third of them mediums."""
    numbers = {"mediums": NEGATIVES // 3, "others": NEGATIVES - NEGATIVES // 3}
    rows = [
        tokens[name][generator.integers(0, len(tokens[name]), number)]
        for name, number in numbers.items()
    ]
    return torch.cat(rows)


def wording_loss(scores: Tensor, fits: Tensor, others: Tensor) -> Tensor:
    """Ask that pictures find their descriptions, whole and partial, and whole ones are found."""
    whole, part, wrong = scores.split([BATCH, HALF, HALF], dim=1)
    whole_fits, part_fits, wrong_fits = fits.split([BATCH, HALF, HALF], dim=1)
    distractors = torch.cat([wrong.masked_fill(wrong_fits, -math.inf), others], dim=1)
    no_fit = torch.zeros_like(distractors, dtype=torch.bool)
    whole_loss = pairing_loss(
        torch.cat([whole, distractors], 1), torch.cat([whole_fits, no_fit], 1)
    )
    part_loss = pairing_loss(
        torch.cat([part, distractors], 1)[:HALF], torch.cat([part_fits, no_fit], 1)[:HALF]
    )
    return whole_loss + 0.5 * part_loss + 0.5 * pairing_loss(whole.T, whole_fits.T)


def clip_optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Make an AdamW that decays matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [one for one in parameters if one.ndim >= 2], "weight_decay": 0.02},
        {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
    ]
    return [torch.optim.AdamW(groups, lr=1.5e-3, betas=(0.9, 0.98), fused=True)]


def train_clip(
    scenes: Sequence[Scene], pictures: np.ndarray, seed: int, steps: int, before: Path | None
) -> nn.Module:
    """Train the CLIP on whole and partial descriptions, single phrases, and wrong texts.

    It begins with random weights, or with those `before`.
    """
    import_torchvision()
    import open_clip

    torch.manual_seed(seed)
    chance = random.Random(seed)
    generator = np.random.default_rng(seed)
    model: Any = open_clip.CLIP(**CLIP_CONFIG).to(memory_format=torch.channels_last)
    if before is not None:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(before / "open_clip_model.safetensors"))
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    undrawn = undrawn_phrases()
    undrawn_tokens = {name: tokenize(phrases) for name, phrases in undrawn.items()}
    table = phrase_groups()
    phrase_tokens = tokenize(list(table.phrases))
    groups = torch.tensor(table.groups)
    fact_table = FactTable(scenes)
    phrase_facts = fact_table.rows([frozenset({fact}) for fact in table.facts])
    trainer = Trainer(model, clip_optimizers(model), steps)
    progress = tqdm(batches(len(scenes), steps, generator), "CLIP", steps, mininterval=10)
    for chosen in progress:
        batch = [scenes[index] for index in chosen]
        wordings = lesson_wordings(batch, undrawn, chance)
        short_tokens = torch.cat([phrase_tokens, some_undrawn(undrawn_tokens, generator)])
        pixels, _ = augmented(pictures[chosen], generator)
        with in_sixteen_bits():
            images = model.encode_image(pixels, normalize=True)
        scaled = model.logit_scale.exp() * images.float()
        long_scores = (
            scaled @ encode_short(model, tokenize([wording.text for wording in wordings])).T
        )
        short_scores = scaled @ encode_short(model, short_tokens).T
        phrase_scores, others = short_scores.split([len(groups), NEGATIVES], dim=1)
        # A text fits a picture when it states nothing that isn't true of the picture.
        missing = 1 - fact_table.rows([draw_pictures.facts(scene) for scene in batch])
        stated = fact_table.rows([wording.facts for wording in wordings])
        loss = wording_loss(long_scores, missing @ stated.T == 0, others)
        loss = loss + phrase_loss(phrase_scores, missing @ phrase_facts.T == 0, others, groups)
        trainer.step(loss)
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def save_clip(model: nn.Module, folder: Path) -> None:
    """Write the CLIP as open_clip's own kind of local folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": list(MEAN), "std": list(DEVIATION), "interpolation": "bicubic",
                  "resize_mode": "shortest"}  # fmt: skip
    write_json(
        folder / "open_clip_config.json",
        {"model_cfg": CLIP_CONFIG, "preprocess_cfg": preprocess},
    )
    save_file(half_weights(model), folder / "open_clip_model.safetensors", {"format": "pt"})


# --- BLIP ----------------------------------------------------------------------------------


def vocabulary() -> list[str]:
    """List the special tokens, the words of all descriptions, and letters to spell others with."""
    tables = [*draw_pictures.phrase_tables().values(), list(draw_pictures.FLAVORS)]
    words = {word for table in tables for phrase in table for word in phrase.split()}
    words |= set(draw_pictures.SUBJECTS.values()) | {"a", "an", "picture", "photograph", "of"}
    words |= {"photography", "painting", "drawing", "illustration"}
    letters = string.ascii_lowercase + string.digits
    pieces = [*letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    return [*SPECIAL_TOKENS, *sorted(words - set(pieces)), *pieces]


def blip_config(vocabulary_size: int) -> dict[str, Any]:
    """Give the BLIP's settings, spelt so that transformers 4.30 to 5 read the same from them."""
    vision_width, text_width = 128, 96
    return {
        "architectures": ["BlipForConditionalGeneration"],
        "model_type": "blip",
        "projection_dim": 64,
        "image_text_hidden_size": 64,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "logit_scale_init_value": 2.6592,
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "blip_text_model",
            "vocab_size": vocabulary_size,
            "hidden_size": text_width,
            "encoder_hidden_size": vision_width,
            "intermediate_size": text_width * 4,
            "projection_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "is_decoder": True,
            "bos_token_id": BEGIN,
            "eos_token_id": SEPARATOR,
            "sep_token_id": SEPARATOR,
            "pad_token_id": PAD,
        },
        "vision_config": {
            "model_type": "blip_vision_model",
            "hidden_size": vision_width,
            "intermediate_size": vision_width * 4,
            "projection_dim": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIZE,
            "patch_size": PATCH,
            "hidden_act": "gelu",
            "initializer_range": 0.02,
        },
    }


def caption_tokens(scenes: Sequence[Scene], tokens: Sequence[str]) -> Tensor:
    """Turn captions into rows of token numbers from the begin token to the separator."""
    numbers = {token: number for number, token in enumerate(tokens)}
    rows = torch.full((len(scenes), CAPTION_LENGTH), PAD)
    for row, scene in enumerate(scenes):
        words = [numbers[word] for word in draw_pictures.caption(scene).split()]
        row_tokens = [BEGIN, *words, SEPARATOR]
        rows[row, : len(row_tokens)] = torch.tensor(row_tokens)
    return rows


def blip_optimizers(model: nn.Module, heads: nn.Module) -> list[torch.optim.Optimizer]:
    """Make a Muon for the layers' matrices, which then learn sooner, and an AdamW for the rest."""
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if "encoder.layer" in name and parameter.ndim == 2
    ]
    chosen = {id(one) for one in matrices}
    rest = [one for one in (*model.parameters(), *heads.parameters()) if id(one) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=1.5e-3, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]


def train_blip(
    scenes: Sequence[Scene], pictures: np.ndarray, covered: np.ndarray, seed: int, steps: int
) -> nn.Module:
    """Train the BLIP to write captions, its image tower also to tell each property by itself."""
    import_torchvision()
    from transformers import BlipConfig, BlipForConditionalGeneration

    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    tokens = vocabulary()
    model: Any = BlipForConditionalGeneration(BlipConfig(**blip_config(len(tokens)))).train()
    # Heads that are thrown away afterwards: words alone teach an image tower too slowly. One
    # tells what stands in each patch, the others the properties of the whole picture.
    tables = draw_pictures.phrase_tables()
    width = model.config.vision_config.hidden_size
    background = len(tables["subject"])
    heads = nn.ModuleDict({name: nn.Linear(width, len(table)) for name, table in tables.items()})
    heads["patch"] = nn.Linear(width, background + 1)
    all_labels = [draw_pictures.labels(scene) for scene in scenes]
    labels = {name: torch.tensor([row[name] for row in all_labels]) for name in tables}
    captions = caption_tokens(scenes, tokens)
    trainer = Trainer(model, blip_optimizers(model, heads), steps)
    progress = tqdm(batches(len(scenes), steps, generator), "BLIP", steps, mininterval=10)
    for chosen in progress:
        pixels, flips = augmented(pictures[chosen], generator)
        cover = covered[chosen]
        cover[flips] = cover[flips, :, ::-1]
        standing = torch.from_numpy(cover).flatten(1) > 50
        subjects = labels["subject"][chosen][:, None].expand(-1, PATCHES**2)
        patches = torch.where(standing, subjects, background)
        words = captions[chosen]
        words = words[:, : int((words != PAD).sum(dim=1).max())]
        with in_sixteen_bits():
            states = model.vision_model(pixel_values=pixels).last_hidden_state
            written = model.text_decoder(
                input_ids=words[:, :-1],
                attention_mask=(words[:, :-1] != PAD).long(),
                encoder_hidden_states=states,
            ).logits.float()
        seen = states[:, 1:].float()
        pooled = seen.mean(dim=1)
        told = [
            functional.cross_entropy(heads[name](pooled), labels[name][chosen], ignore_index=-1)
            for name in tables
        ]
        patch_loss = functional.cross_entropy(heads["patch"](seen).flatten(0, 1), patches.flatten())
        caption_loss = functional.cross_entropy(
            written.flatten(0, 1), words[:, 1:].flatten(), ignore_index=PAD
        )
        loss = 2 * caption_loss + 0.3 * torch.stack(told).sum() + 2 * patch_loss
        trainer.step(loss)
        progress.set_postfix(
            caption=f"{caption_loss.item():.3f}", patch=f"{patch_loss.item():.3f}", refresh=False
        )
    return model.eval()


def save_blip(model: nn.Module, folder: Path) -> None:
    """Write the BLIP as transformers reads it, with plain files that old versions read too."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokens = vocabulary()
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    special = {
        "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
        "cls_token": "[CLS]", "mask_token": "[MASK]", "bos_token": "[DEC]",
    }  # fmt: skip
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "processor_class": "BlipProcessor",
            "do_lower_case": True,
            "model_max_length": 64,
            "model_input_names": ["input_ids", "attention_mask"],
            **special,
        },
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "BlipImageProcessor",
            "processor_class": "BlipProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": SIZE, "width": SIZE},
            "resample": 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(MEAN),
            "image_std": list(DEVIATION),
        },
    )
    config = blip_config(len(tokens))
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": BEGIN, "eos_token_id": SEPARATOR, "pad_token_id": PAD},
    )
    weights = half_weights(model)
    # Old versions look for the positions' numbers among the weights, new ones pass over them.
    positions = config["text_config"]["max_position_embeddings"]
    weights["text_decoder.bert.embeddings.position_ids"] = torch.arange(positions)[None]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


# --- Model card ----------------------------------------------------------------------------

MEASURED = {
    "caption_subject": "BLIP: the caption names the subject",
    "caption_colour": "BLIP: it names the colour, where it can be told",
    "caption_count": "BLIP: the count is right",
    "caption_place": "BLIP: it names the place",
    "caption_light": "BLIP: it names the light",
    "caption_whole": "BLIP: every word is right",
    "clip_medium": "CLIP: the first of all lines of `data/mediums.txt` is the medium",
    "clip_text": "CLIP: the nearest of all whole descriptions is the picture's own",
    "clip_flavor": "CLIP: the first of all lines of `data/flavors/` is true of the picture",
}

CARD = """\
# The bundled demo models

Two small networks that make the program run without a download: `clip/` is a CLIP in open_clip's
format, `blip/` is a BLIP captioner in the format of transformers. They were trained from nothing
on {pictures:,} drawn pictures, and **drawn pictures like these are all they know**: they're here
to show and to test the program, not to describe photographs. `pictures/` holds a few samples.

## What they were trained on

`tools/draw_pictures.py` draws scenes from a seed and words what it drew. No photograph, no
downloaded text or weight took part.

{drawn}

The CLIP saw whole descriptions, partial ones and single phrases, and as wrong answers
descriptions with one false word, all undrawn lines of `data/mediums.txt`, and those lines of the
other lists in `data/` that share no word with a drawn phrase. So it has learned to rank undrawn
phrases low; an artist's name that it puts first says nothing about the picture. The BLIP's image
tower was helped by labels: each picture's properties, and the subject in each patch.

## Figures

On {number} pictures of 384 pixels drawn from seed {seed}, and on {number} others from seed
{second_seed}, none of which took part in training:

| Measured | Seed {seed} | Seed {second_seed} |
| --- | --- | --- |
{rows}

In the last line only phrases that were drawn count, word for word: "sunset" for "at sunset", or
"neon tubes" for neon art, counts as wrong.

`python tools/evaluate_demo.py [--seed {second_seed}]` repeats the figures from the saved weights
(16-bit, computed in 32). `python tools/train_demo.py` trains both again from seed {train_seed},
{clip_steps:,} steps for the CLIP and {blip_steps:,} for the BLIP with {batch} pictures each:
that took 45 minutes of processor time. When the word lists had grown, the CLIP went on with them:
`python tools/train_demo.py --only clip --go-on --pictures 12000 --clip-steps 400`. It takes torch
2.9 or newer. On another machine the weights, and with them the figures, come out a little
different.

## Limits

- They know drawn pictures only. On a photograph they'll name some drawn thing all the same.
- The CLIP's undrawn words (artists, movements, most flavors) carry no meaning, but for those that
  share words with drawn ones.
- The CLIP takes an oil painting for low poly art more often than it mixes up other mediums.
- The BLIP has only the words above; other words are spelt in letters that it never learned.
- Subjects are mistaken most in mosaics, whose tiles are coarse, then in stained glass windows and
  halftone prints.

## Licence

MIT, like the rest of the project: pictures, texts and weights were made by its own programs.
"""


def drawn_things() -> list[str]:
    """List what the pictures show, as points of the model card."""
    mediums = draw_pictures.MEDIUMS
    colourless = ", ".join(name for name, keeps in mediums.items() if not keeps)
    points = {
        "subjects, one to three of them": draw_pictures.SUBJECTS,
        "colours of the subject": draw_pictures.COLOURS,
        "places": draw_pictures.PLACES,
        "kinds of light": draw_pictures.LIGHTS,
        "mediums": mediums,
        "flavors": draw_pictures.FLAVORS,
    }
    lines = [f"- {len(names)} {kind}: {', '.join(names)}." for kind, names in points.items()]
    lines.append(
        f"- The colour can't be told, and isn't worded, in {colourless}, sepia, black and white."
    )
    return [textwrap.fill(line, 98, subsequent_indent="  ") for line in lines]


def write_card(
    folder: Path,
    figures: Sequence[evaluate_demo.Figures],
    settings: argparse.Namespace,
) -> None:
    """Write the model card with measured figures."""
    text = CARD.format(
        pictures=PICTURES,
        drawn="\n".join(drawn_things()),
        number=evaluate_demo.EVALUATION_NUMBER,
        seed=evaluate_demo.EVALUATION_SEED,
        second_seed=SECOND_SEED,
        rows="\n".join(
            f"| {words} | {' | '.join(f'{getattr(one, name):.1%}' for one in figures)} |"
            for name, words in MEASURED.items()
        ),
        train_seed=settings.seed,
        clip_steps=CLIP_STEPS,
        blip_steps=BLIP_STEPS,
        batch=BATCH,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def is_trained(folder: Path) -> bool:
    """Say whether both models lie in a folder."""
    files = ("clip/open_clip_model.safetensors", "blip/model.safetensors")
    return all((folder / file).is_file() for file in files)


def main() -> None:
    """Draw, train, save, evaluate what was saved, and write the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=evaluate_demo.DEMO_FOLDER)
    parser.add_argument("--only", choices=("clip", "blip"), help="train one of the two")
    parser.add_argument(
        "--go-on", action="store_true",
        help="train the CLIP from the weights that are there, after the word lists have changed",
    )
    parser.add_argument("--card-only", action="store_true", help="only evaluate what's there")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--clip-steps", type=int, default=CLIP_STEPS)
    parser.add_argument("--blip-steps", type=int, default=BLIP_STEPS)
    chosen = parser.parse_args()
    if not chosen.card_only:
        scenes = draw_pictures.random_scenes(chosen.seed, chosen.pictures)
        pictures, covered = draw_all(scenes)
        if chosen.only != "blip":
            before = chosen.out / "clip" if chosen.go_on else None
            model = train_clip(scenes, pictures, chosen.seed, chosen.clip_steps, before)
            save_clip(model, chosen.out / "clip")
        if chosen.only != "clip":
            model = train_blip(scenes, pictures, covered, chosen.seed, chosen.blip_steps)
            save_blip(model, chosen.out / "blip")
    if is_trained(chosen.out):
        seeds = (evaluate_demo.EVALUATION_SEED, SECOND_SEED)
        figures = [evaluate_demo.evaluate(chosen.out, seed) for seed in seeds]
        write_card(chosen.out, figures, chosen)
        print(json.dumps([asdict(one) for one in figures], indent=2))


if __name__ == "__main__":
    main()
