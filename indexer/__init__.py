"""Categories in words -> prompts -> vectors -> a FAISS index on disk."""

from indexer.answer import Answer, Policy
from indexer.calibrating import Calibrated, calibrate
from indexer.calibration import Calibration, Threshold
from indexer.category import JSON, Category, category_from_json, category_to_json
from indexer.category_files import parse_categories, read_categories
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
    TemplateError,
    UnknownIndexError,
    UnknownVersionError,
    VectorError,
    WrongModelError,
)
from indexer.evaluation import Evaluation, evaluate
from indexer.image_files import Skipped
from indexer.image_index import ImageIndex, ImageMatch
from indexer.labelled_images import (
    EmbeddedImages,
    LabelledImages,
    embed_images,
    read_labelled_images,
)
from indexer.layout import LayoutOptions
from indexer.manifest import Manifest
from indexer.match import GroupMatch, Match, Ranking
from indexer.progress import Progress
from indexer.prompt_cache import PromptCache
from indexer.store import IndexInfo, IndexStore
from indexer.templates import TEMPLATE_SETS, Templates, resolve_templates

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
