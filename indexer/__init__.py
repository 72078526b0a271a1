"""Categories in words -> prompts -> vectors -> a FAISS index on disk."""

from indexer.categories.category import JSON, Category, category_from_json, category_to_json
from indexer.categories.files import parse_categories, read_categories
from indexer.category_index import CategoryIndex
from indexer.errors import (
    BrokenIndexError,
    CategoryError,
    ConflictError,
    ImageFolderError,
    IndexNameError,
    LayoutError,
    PolicyError,
    PromptTooLongError,
    StorageError,
    UnknownIndexError,
    UnknownVersionError,
    VectorError,
    WrongModelError,
)
from indexer.evaluation.calibrating import Calibrated, calibrate
from indexer.evaluation.evaluation import Evaluation, evaluate
from indexer.evaluation.labelled_images import (
    EmbeddedImages,
    LabelledImages,
    embed_images,
    read_labelled_images,
)
from indexer.image_index import ImageIndex, ImageMatch, Skipped
from indexer.manifest import Manifest
from indexer.ranking.answer import Answer, Policy
from indexer.ranking.calibration import Calibration, Threshold
from indexer.ranking.match import GroupMatch, Match, Ranking
from indexer.store import IndexInfo, IndexStore
from indexer.vectors.embedding import Progress
from indexer.vectors.layout import LayoutOptions
from indexer.vectors.prompt_cache import PromptCache
from models.errors import TemplateError
from models.prompts import TEMPLATE_SETS, Templates, resolve_templates

__all__ = [
    "JSON",
    "TEMPLATE_SETS",
    "Answer",
    "BrokenIndexError",
    "Calibrated",
    "Calibration",
    "Category",
    "CategoryError",
    "CategoryIndex",
    "ConflictError",
    "EmbeddedImages",
    "Evaluation",
    "GroupMatch",
    "ImageFolderError",
    "ImageIndex",
    "ImageMatch",
    "IndexInfo",
    "IndexNameError",
    "IndexStore",
    "LabelledImages",
    "LayoutError",
    "LayoutOptions",
    "Manifest",
    "Match",
    "Policy",
    "PolicyError",
    "Progress",
    "PromptCache",
    "PromptTooLongError",
    "Ranking",
    "Skipped",
    "StorageError",
    "TemplateError",
    "Templates",
    "Threshold",
    "UnknownIndexError",
    "UnknownVersionError",
    "VectorError",
    "WrongModelError",
    "calibrate",
    "category_from_json",
    "category_to_json",
    "embed_images",
    "evaluate",
    "parse_categories",
    "read_categories",
    "read_labelled_images",
    "resolve_templates",
]
