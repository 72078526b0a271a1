"""The prompt templates that OpenAI published with CLIP, as open_clip carries them.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
2021, section 3.1.4.
"""

from __future__ import annotations

from typing import Literal

from models.torchvision_ops import declare_missing_operators


def openai_templates(count: Literal[7, 80]) -> tuple[str, ...]:
    """The 7 or the 80 templates for ImageNet, `{}` where the label goes.

    The first call imports open_clip, which takes seconds.
    """
    declare_missing_operators()
    import open_clip

    functions = {
        7: open_clip.SIMPLE_IMAGENET_TEMPLATES,
        80: open_clip.OPENAI_IMAGENET_TEMPLATES,
    }[count]
    return tuple(function("{}") for function in functions)
