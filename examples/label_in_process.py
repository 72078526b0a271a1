"""Label a folder of images without a server: this process loads the model, encodes and compares.

    python examples/label_in_process.py photos --labels "bird,dog,car" > labels.jsonl

Prints one JSON object for each image. For large folders, remote storage, or runs that must continue
after a restart, use `clipdex classify photos --labels ... --out labels.parquet`.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indexer import CategoryIndex
from models import Encoder, ImageError, decode_image, load_encoder

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
AT_ONCE = 64  # images decoded and encoded together


def label(
    paths: list[Path], encoder: Encoder, index: CategoryIndex, top_k: int
) -> Iterator[dict[str, Any]]:
    """A dictionary for each image, in order."""
    for start in range(0, len(paths), AT_ONCE):
        images, answers = [], {}
        for path in paths[start : start + AT_ONCE]:
            try:
                # With a target, large JPEGs are decoded at a fraction of their size: much quicker.
                image = decode_image(path.read_bytes(), target=encoder.image_size)
                images.append((path, image))
            except (ImageError, OSError) as error:
                answers[path] = {"error": str(error)}
        if images:
            vectors = encoder.encode_images([image for _, image in images])
            for (path, _), matches in zip(images, index.search(vectors, top_k), strict=True):
                answers[path] = {
                    "matches": [
                        {"label": m.label, "score": m.score, "probability": m.probability}
                        for m in matches
                    ]
                }
        for path in paths[start : start + AT_ONCE]:
            yield {"file": str(path), **answers[path]}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", required=True, help="separated by commas")
    parser.add_argument("--model", default="everyday")
    parser.add_argument("--top-k", type=int, default=3)
    options = parser.parse_args()
    encoder = load_encoder(options.model)
    labels = [name.strip() for name in options.labels.split(",") if name.strip()]
    index = CategoryIndex.build(labels, encoder)
    paths = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in ENDINGS)
    failed = 0
    for answer in label(paths, encoder, index, options.top_k):
        failed += "error" in answer
        print(json.dumps(answer, ensure_ascii=False))
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
