"""Categories in words -> prompts -> vectors -> a FAISS index on disk."""

from indexer.category import JSON, Category, category_from_json, category_to_json
from indexer.category_files import parse_categories, read_categories
from indexer.category_index import CategoryIndex
from indexer.embedding import Progress
from indexer.errors import (
    BrokenIndexError,
    CategoryError,
    ConflictError,
    IndexNameError,
    LabelledImagesError,
    PolicyError,
    PromptTooLongError,
    TemplateError,
    UnknownIndexError,
    UnknownVersionError,
    VectorError,
    WrongModelError,
)
from indexer.manifest import Manifest
from indexer.match import GroupMatch, Match, Ranking
from indexer.store import IndexInfo, IndexStore
from indexer.templates import TEMPLATE_SETS, Templates, resolve_templates

__all__ = [
    "JSON",
    "TEMPLATE_SETS",
    "BrokenIndexError",
    "Category",
    "CategoryError",
    "CategoryIndex",
    "ConflictError",
    "GroupMatch",
    "IndexInfo",
    "IndexNameError",
    "IndexStore",
    "LabelledImagesError",
    "Manifest",
    "Match",
    "PolicyError",
    "Progress",
    "PromptTooLongError",
    "Ranking",
    "TemplateError",
    "Templates",
    "UnknownIndexError",
    "UnknownVersionError",
    "VectorError",
    "WrongModelError",
    "category_from_json",
    "category_to_json",
    "parse_categories",
    "read_categories",
    "resolve_templates",
]
