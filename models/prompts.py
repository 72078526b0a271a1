"""Prompt templates and ensembling: a label becomes several prompts, their unit vectors one.

A label alone is a worse prompt than a sentence around it, and the average of several sentences'
vectors is better than each of them.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021,
section 3.1.4 (prompt engineering and ensembling in embedding space).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.encoder import Encoder, Vectors
from models.errors import TemplateError
from models.openclip import declare_missing_operators


def openai_templates(count: Literal[7, 80]) -> tuple[str, ...]:
    """OpenAI's 7 or 80 templates for ImageNet as open_clip carries them, `{}` for the label.

    The first call imports open_clip, which takes seconds.
    """
    declare_missing_operators()
    import open_clip

    functions = {
        7: open_clip.SIMPLE_IMAGENET_TEMPLATES,
        80: open_clip.OPENAI_IMAGENET_TEMPLATES,
    }[count]
    return tuple(function("{}") for function in functions)


_SLOT = "{}"


_MAX_TEMPLATES = 1000


_PLAIN = (_SLOT,)


_PICTOGRAM = (
    "{}",
    "a photo of a {}",
    "a drawing of a {}",
    "an icon of a {}",
    "a pictogram of a {}",
    "an emoji of a {}",
    "a picture of a {}",
    "a flat icon of a {}",
    "a symbol of a {}",
    "an illustration of a {}",
)


# For photographs and drawings alike; chosen by measurement (models/everyday/MODEL_CARD.md).
_EVERYDAY = (
    "{}",
    "a photo of a {}",
    "an icon of a {}",
)


_KOREAN = (
    "{}",
    "{} 사진",
    "{}의 사진",
    "{} 그림",
    "{} 아이콘",
    "{}을(를) 찍은 사진",
    "{}의 선명한 사진",
    "{}의 흐릿한 사진",
    "{}의 확대 사진",
    "작은 {}의 사진",
    "큰 {}의 사진",
)


# The 7 and the 80 come from open_clip, which is imported only when one of them is asked for.
TEMPLATE_SETS = ("plain", "everyday", "pictogram", "openai7", "openai80", "korean")


@dataclass(frozen=True)
class Templates:
    """Sentences with `{}` where a name goes.

    name: of the set, None for templates of the user's own
    """

    name: str | None
    texts: tuple[str, ...]

    def prompts(self, name: str) -> tuple[str, ...]:
        """Every template with `name` in its place."""
        return tuple(text.replace(_SLOT, name) for text in self.texts)


def resolve_templates(templates: str | Sequence[str]) -> Templates:
    """A set by its name, or templates of one's own.

    Raises: TemplateError if no set has that name, there are no templates, or one lacks `{}`.
    """
    if isinstance(templates, str):
        return Templates(templates, _template_set(templates))
    texts = tuple(templates)
    if not texts or len(texts) > _MAX_TEMPLATES:
        raise TemplateError(
            f"give between 1 and {_MAX_TEMPLATES} templates, not {len(texts)}", param="templates"
        )
    for text in texts:
        if not isinstance(text, str) or _SLOT not in text:
            raise TemplateError(
                f"the template {text!r} has no {{}} where the label goes", param="templates"
            )
    if len(set(texts)) < len(texts):
        raise TemplateError("a template occurs twice; take one out", param="templates")
    return Templates(None, texts)


def _template_set(name: str) -> tuple[str, ...]:
    if name == "plain":
        return _PLAIN
    if name == "everyday":
        return _EVERYDAY
    if name == "pictogram":
        return _PICTOGRAM
    if name == "korean":
        return _KOREAN
    if name == "openai7":
        return openai_templates(7)
    if name == "openai80":
        return openai_templates(80)
    close = difflib.get_close_matches(name, TEMPLATE_SETS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    slot = " (own templates need {} where the label goes)" if " " in name else ""
    raise TemplateError(
        f"no template set is called {name!r}; {hint}there are {', '.join(TEMPLATE_SETS)}{slot}",
        param="templates",
    )


def ensemble(rows: Sequence[Sequence[str]], encoder: Encoder) -> Vectors:
    """One unit vector for each row of prompts: float32 [len(rows), D].

        v = sum_i t_i / |sum_i t_i|      t_i: the unit vector of the row's prompt i

    rows: each with at least one prompt
    """
    if not rows:
        return np.empty((0, encoder.dim), np.float32)
    encoded = encoder.encode_texts([prompt for prompts in rows for prompt in prompts])
    starts = np.cumsum([0, *(len(prompts) for prompts in rows[:-1])])
    sums = np.add.reduceat(encoded, starts, axis=0)
    unit: Vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return unit
