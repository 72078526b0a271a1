"""Encoders: images and texts to unit vectors of one space, whatever model and runtime."""

from models.encoder import Encoder, Vectors
from models.errors import (
    BackendError,
    ClipdexError,
    ModelBrokenError,
    ModelUnavailableError,
    UnknownModelError,
    UserError,
)
from models.images import ImageError, decode_image
from models.load import load_encoder

__all__ = [
    "BackendError",
    "ClipdexError",
    "Encoder",
    "ImageError",
    "ModelBrokenError",
    "ModelUnavailableError",
    "UnknownModelError",
    "UserError",
    "Vectors",
    "decode_image",
    "load_encoder",
]
