"""The one door to open_clip: imports it where that works, and builds its models from a config."""

from __future__ import annotations

import copy
import functools
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError

from models.errors import ModelBrokenError, ModelUnavailableError

if TYPE_CHECKING:
    from torch import nn


def import_open_clip() -> ModuleType:
    """open_clip, importable even where torchvision's operators don't load."""
    declare_missing_operators()
    import open_clip

    return cast(ModuleType, open_clip)


@functools.cache
def import_tokenizers() -> ModuleType:
    """open_clip's module of tokenizers, without the package around it.

    The package imports torchvision, timm and, where it is installed, transformers: 3 s of
    processor time, which a process that only encodes the texts of a plain CLIP needn't spend.
    """
    package = find_spec("open_clip")  # finds, doesn't import
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).with_name("tokenizer.py")
    spec = importlib.util.spec_from_file_location("models._open_clip_tokenizer", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_clip(model_cfg: Mapping[str, Any], folder: Path | None = None) -> nn.Module:
    """A CLIP, CustomTextCLIP or CoCa with random weights, in evaluation mode, on the CPU.

    model_cfg: open_clip's own (`embed_dim`, `vision_cfg`, `text_cfg`, `quick_gelu`, ...). Weights
        of single towers are never fetched, whatever it says: they come with the whole model.
    folder: the model's own; a Hugging Face text tower's `hf_model_name` may be a folder in it

    Raises: ModelBrokenError where the config describes no model that open_clip can build;
        ModelUnavailableError where a Hugging Face text tower's own config can't be had.
    """
    open_clip = import_open_clip()
    config = copy.deepcopy(dict(model_cfg))
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    is_hf_text = "hf_model_name" in text
    if is_hf_text:
        if find_spec("transformers") is None:
            raise ModelUnavailableError(
                f"the text tower {text['hf_model_name']} needs the package transformers; pip"
                " install transformers",
                param="model",
            )
        text["hf_model_pretrained"] = False
        if folder is not None and (folder / text["hf_model_name"]).is_dir():
            text["hf_model_name"] = str(folder / text["hf_model_name"])
    custom_text = config.pop("custom_text", False) or is_hf_text
    kind = open_clip.CLIP
    if custom_text:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        module: nn.Module = kind(**config)
    except OSError as exc:
        raise ModelUnavailableError(
            f"the config of the text tower {text.get('hf_model_name')} is neither cached nor to be"
            f" fetched ({str(exc).splitlines()[0]})",
            param="model",
        ) from exc
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as exc:
        raise ModelBrokenError(
            f"open_clip cannot build this model_cfg: {exc}", param="model"
        ) from exc
    return module.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors checkpoint, in open_clip's or a known foreign layout, strictly.

    Raises: ModelBrokenError where the file is damaged, no safetensors, or of another architecture.
    """
    # What open_clip would open as a pickle or a TorchScript archive never gets there.
    if path.suffix != ".safetensors":
        raise ModelBrokenError(
            f"{path.name}: weights are read from safetensors only", param="model"
        )
    try:
        import_open_clip().load_checkpoint(module, str(path), strict=True, device="cpu")
    except SafetensorError as exc:
        raise ModelBrokenError(
            f"{path} is damaged or no safetensors file ({exc}); fetch or save it again",
            param="model",
        ) from exc
    except (RuntimeError, KeyError, AttributeError) as exc:
        reason = str(exc).splitlines()[0]
        raise ModelBrokenError(
            f"the weights in {path} are not those of the model its config describes ({reason})",
            param="model",
        ) from exc


# ---- Lets `import torchvision` work where its compiled operators can't load.
#
# A torchvision wheel built against CUDA torch carries operators that a CPU torch can't load.
# Python's side of torchvision then fails at import, because it registers fake kernels for
# `torchvision::nms` and `torchvision::qnms`, which nobody has declared. open_clip imports
# torchvision
# only for its transforms and never calls either. Declaring the two schemas, without an
# implementation, is enough; calling them still fails, loudly.


_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


# A torch.library fragment lives as long as its handle: dropped, it would take the schemas along.
_declared: list[object] = []


def declare_missing_operators() -> bool:
    """Declare the schemas that torchvision's import needs; call before importing it.

    Returns True if they were declared, False where the real operators load (then nothing is
    done) or where this has been done before.
    """
    if _declared or _operators_load():
        return False
    import torch

    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS.values():
        fragment.define(schema)
    _declared.append(fragment)
    return True


def _operators_load() -> bool:
    """Whether torchvision's own extension, if it has one, loads into this torch."""
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return True
    spec = importlib.util.find_spec("torchvision")  # finds, doesn't import
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return hasattr(torch.ops.torchvision, "nms")
    return False


# ---- Keeps `import open_clip` working after `load_encoder`, even where that didn't import torch.
#
# `load_encoder` promises it, but from a warm cache it has no need of torch, and declaring
# torchvision's operators needs it. So the declaration waits until something imports torchvision.


class _DeclareFirst(Loader):
    """A module's own loader, behind one step of ours."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does it."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Declare the operators, step aside, run the module."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        declare_missing_operators()
        self._loader.exec_module(module)


class _TorchvisionFinder(MetaPathFinder):
    """Finds torchvision where it lies, and nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """torchvision's spec with our loader before its own; None for all other modules."""
        if fullname != "torchvision":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _DeclareFirst(spec.loader)
        return spec


def declare_operators_on_import() -> None:
    """Arrange for the operators to be declared just before torchvision is imported."""
    waiting = any(isinstance(finder, _TorchvisionFinder) for finder in sys.meta_path)
    if "torchvision" not in sys.modules and not waiting:
        sys.meta_path.insert(0, _TorchvisionFinder())
