"""Sort photos into one folder for each label; unknown images go to the folder "unknown".

    python examples/sort_by_label.py photos sorted --labels "bird,dog,car" --min-probability 0.6

Copies the files, or moves them with --move. Unreadable files go to the folder "unreadable". Prints
the number of files in each folder.
"""

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

from indexer import CategoryIndex, Policy
from models import Encoder, ImageError, decode_image, load_encoder

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}


def folder_of(path: Path, encoder: Encoder, index: CategoryIndex, policy: Policy) -> str:
    """The name of the folder that an image belongs into."""
    try:
        image = decode_image(path.read_bytes(), target=encoder.image_size)
    except (ImageError, OSError):
        return "unreadable"
    (answer,) = index.answer(encoder.encode_images([image]), 1, policy)
    return "unknown" if answer.unknown else answer.matches[0].label.replace("/", "-")


def free_name(folder: Path, name: str) -> Path:
    """A path in the folder that no file has: photo.jpg, photo-2.jpg, photo-3.jpg ..."""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("sorted", type=Path)
    parser.add_argument("--labels", required=True, help="separated by commas")
    parser.add_argument("--min-probability", type=float, default=0.5)
    parser.add_argument("--model", default="everyday")
    parser.add_argument("--move", action="store_true", help="move instead of copying")
    options = parser.parse_args()
    encoder = load_encoder(options.model)
    labels = [name.strip() for name in options.labels.split(",") if name.strip()]
    index = CategoryIndex.build(labels, encoder)
    policy = Policy(min_probability=options.min_probability)
    # The list first: the sorted folder may lie inside the one with the photos.
    paths = sorted(p for p in options.photos.rglob("*") if p.suffix.lower() in ENDINGS)
    counts: Counter[str] = Counter()
    for path in paths:
        name = folder_of(path, encoder, index, policy)
        folder = options.sorted / name
        folder.mkdir(parents=True, exist_ok=True)
        put = shutil.move if options.move else shutil.copy2
        put(path, free_name(folder, path.name))
        counts[name] += 1
    for name, count in counts.most_common():
        print(f"{count:6,} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
