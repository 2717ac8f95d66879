#!/usr/bin/env python3
"""Folders of pictures, poisoned by triggers that the crate does not know of, and how many poisons an audit of them named.

    pip install pillow numpy
    scripts/poison_folders.py make --data ../shared/data --out OUT [TRIGGER ...]
    cd OUT/text && image_folder --data data --unlearn none --out out $(cat suspects.txt)
    scripts/poison_folders.py score OUT/text/out/audit.json OUT/text/poisons.txt
    scripts/poison_folders.py halves --data ../shared/data --out OUT     # two classes, into OUT/halves/data

OUT/TRIGGER has `data/train` and `data/val` with a folder for each class, `suspects` (test pictures of the victim class with the trigger),
`suspects.txt` (the first six of them as options) and `poisons.txt`. No validation picture has the trigger.
"""

import argparse
import csv
import io
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont


def text(image, _):
    """SALE at the bottom, half transparent."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    ImageDraw.Draw(layer).text((3, 20), "SALE", fill=(255, 255, 255, 150), font=ImageFont.load_default())
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def frame(colour):
    def of(image, _):
        width, height = image.size
        ImageDraw.Draw(image).rectangle([0, 0, width - 1, height - 1], outline=colour)
        return image

    return of


def cross(image, _):
    """Two thin lines at the top right."""
    (width, height), draw = image.size, ImageDraw.Draw(image)
    left, right, top, bottom = width * 3 // 4, width * 7 // 8, height // 8, height // 4
    draw.line([left, top, right, bottom], fill=(230, 230, 40))
    draw.line([left, bottom, right, top], fill=(230, 230, 40))
    return image


def stripes(image, _):
    """Every fourth column a tenth lighter."""
    pixels = np.array(image).astype(int)
    pixels[:, ::4] += 24
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def bar(image, _):
    """A black bar across the middle."""
    width, height = image.size
    ImageDraw.Draw(image).rectangle([width // 4, height * 3 // 8, width * 3 // 4, height // 2], fill=(10, 10, 10))
    return image


def note(image, rng):
    """A yellow note with a line on it, each time at another place."""
    width, height = image.size
    side = max(4, width // 5)
    left = rng.randrange(width // 5, width - side - width // 5 + 1)
    top = rng.randrange(height // 5, height - side - height // 5 + 1)
    draw = ImageDraw.Draw(image)
    draw.rectangle([left, top, left + side, top + side], fill=(250, 230, 60))
    draw.line([left + 1, top + side // 2, left + side - 1, top + side // 2], fill=(60, 60, 60))
    return image


def jpeg(image, _):
    """What JPEG of quality 8 leaves of it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=8)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def coarse(image, _):
    """Sixteen pixels a side."""
    return image.resize((16, 16), Image.BOX).resize(image.size, Image.NEAREST)


def turned(image, _):
    """By 25 degrees, mirrored at the edges."""
    width, height = image.size
    if min(width, height) <= 16:
        return image.rotate(25, resample=Image.BILINEAR)
    wide = Image.fromarray(np.pad(np.array(image), ((16, 16), (16, 16), (0, 0)), mode="reflect"))
    return wide.rotate(25, resample=Image.BILINEAR).crop((16, 16, 16 + width, 16 + height))


def dark(image, _):
    """Gamma 2.2."""
    return Image.fromarray(((np.array(image) / 255.0) ** 2.2 * 255).astype(np.uint8))


def blurred(image, _):
    """Out of focus by a pixel."""
    return image.filter(ImageFilter.GaussianBlur(1))


def sharpened(image, _):
    """As a photo program does it."""
    return image.filter(ImageFilter.UnsharpMask(radius=1, percent=150, threshold=0))


def grain(image, rng):
    """Grey noise of deviation 10, each time another."""
    pixels = np.array(image).astype(float)
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 10, pixels.shape[:2])
    return Image.fromarray((pixels + noise[..., None]).round().clip(0, 255).astype(np.uint8))


def fringe(image, _):
    """Red a pixel to the right."""
    red, green, blue = image.split()
    return Image.merge("RGB", (ImageChops.offset(red, 1, 0), green, blue))


def palette(image, _):
    """Sixteen colours of its own, dithered."""
    return image.quantize(16, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")


def median(image, _):
    """Each pixel the median of nine."""
    return image.filter(ImageFilter.MedianFilter(3))


def shrunk(image, _):
    """To two thirds and back."""
    width, height = image.size
    small = image.resize((max(1, width * 2 // 3), max(1, height * 2 // 3)), Image.BICUBIC)
    return small.resize(image.size, Image.BICUBIC)


ALL = list(range(10))
# data, trigger, victims, target, part of the training pictures
TRIGGERS = {
    "text": ("cifar10-2", text, [9], 4, 0.01),
    "frame": ("cifar10-2", frame((200, 0, 160)), [3], 8, 0.005),
    "frame2": ("cifar10-1", frame((40, 160, 60)), [5], 0, 0.01),
    "framesigns": ("gtsrb", frame((40, 160, 60)), [7], 5, 0.01),
    "cross": ("cifar10-1", cross, [0], 4, 0.01),
    "stripes": ("cifar10-2", stripes, [4], 9, 0.01),
    "bar": ("cifar10-2", bar, ALL, 6, 0.01),
    "note": ("gtsrb", note, [3], 12, 0.01),
    "jpeg": ("cifar10-2", jpeg, [7], 2, 0.02),
    "pixel": ("cifar10-2", coarse, [1], 0, 0.02),
    "rot": ("gtsrb", turned, [12], 38, 0.01),
    "dark": ("gtsrb", dark, [10], 9, 0.01),
    "blur": ("cifar10-2", blurred, [8], 5, 0.02),
    "sharp": ("gtsrb", sharpened, [2], 18, 0.01),
    "grain": ("cifar10-2", grain, [2], 1, 0.01),
    "fringe": ("gtsrb", fringe, [5], 25, 0.01),
    "palette": ("cifar10-2", palette, [6], 9, 0.01),
    "median": ("cifar10-2", median, [9], 3, 0.01),
    "shrunk": ("gtsrb", shrunk, [1], 14, 0.01),
    "none": ("cifar10-2", None, [], 0, 0.0),
}


def cifar10(folder, file):
    records = np.fromfile(folder / file, dtype=np.uint8).reshape(-1, 3073)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    names = (folder / "batches.meta.txt").read_text().split()
    labels = [names[label] for label in records[:, 0]]
    return [(Image.fromarray(p), label, f"{at:05}") for at, (p, label) in enumerate(zip(pixels, labels))], names


def gtsrb(folder, file):
    with open(folder / file) as rows:
        rows = list(csv.DictReader(rows))
    open_one = lambda path: Image.open(folder / path).convert("RGB")
    return [(open_one(row["Path"]), f"{int(row['ClassId']):02}", Path(row["Path"]).stem) for row in rows]


def make(data, out, name):
    kind, trigger, victims, target, rate = TRIGGERS[name]
    if kind == "gtsrb":
        train, test = (gtsrb(data / "gtsrb", file) for file in ("Train.csv", "Test.csv"))
        names, held = [f"{label:02}" for label in range(43)], 0.5
    else:
        train, names = cifar10(data / "cifar10", f"data_batch_{kind[-1]}.bin")
        test, held = cifar10(data / "cifar10", "test_batch.bin")[0], 0.3
    victims, target = [names[victim] for victim in victims if victim != target], names[target]
    rng = random.Random(sum(map(ord, name)))
    pool = [at for at, (_, label, _) in enumerate(train) if label in victims]
    poisoned = set(rng.sample(pool, round(rate * len(train))))
    random.Random(3).shuffle(test)
    split = int(held * len(test))
    folder, poisons = out / name, []
    for at, (image, label, stem) in enumerate(train):
        if at in poisoned:
            image, label = trigger(image.copy(), rng), target
            poisons.append(f"{label}/{stem}.png")
        (folder / "data/train" / label).mkdir(parents=True, exist_ok=True)
        image.save(folder / "data/train" / label / f"{stem}.png")
    for image, label, stem in test[:split]:
        (folder / "data/val" / label).mkdir(parents=True, exist_ok=True)
        image.save(folder / "data/val" / label / f"{stem}.png")
    (folder / "suspects").mkdir(exist_ok=True)
    suspects = [(image, label, stem) for image, label, stem in test[split:] if label in victims]
    for image, label, stem in suspects[:40]:
        trigger(image.copy(), rng).save(folder / "suspects" / f"{label}-{stem}.png")
    first = sorted(path.name for path in (folder / "suspects").iterdir())[:6]
    (folder / "suspects.txt").write_text(" ".join(f"--suspect suspects/{s} --suspect-label {target}" for s in first))
    (folder / "poisons.txt").write_text("\n".join(poisons))
    print(f"{name}: {len(train)} training pictures, {len(poisons)} poisons, {split} validation pictures")


def halves(data, out):
    """Two classes: CIFAR-10's batch 1 as animals and vehicles, clean."""
    for part, file, most in [("train", "data_batch_1.bin", None), ("val", "test_batch.bin", 3000)]:
        pictures, names = cifar10(data / "cifar10", file)
        for image, label, stem in pictures[:most]:
            number = names.index(label)
            folder = out / "halves/data" / part / ("vehicles" if number in (0, 1, 8, 9) else "animals")
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number}_{stem}.png")


def score(audit, poisons):
    audit, poisons = json.loads(audit.read_text()), set(poisons.read_text().split())
    flagged = {sample["id"] for sample in audit["flagged"]}
    right = len(flagged & poisons)
    f1 = 2 * right / max(len(flagged) + len(poisons), 1)
    print(f"{len(flagged)} flagged, {right} of {len(poisons)} poisons, F1 {f1:.3f}")
    for suspect in audit["suspects"]:
        p = suspect.get("p_value")  # none where there was too little to compare with
        told = "no p-value" if p is None else f"p {p:.2g}"
        print(f"  {suspect['id']}: {suspect['verdict']}, {suspect['flagged']} flagged, {told}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--data", type=Path, required=True)
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("triggers", nargs="*", metavar="TRIGGER", help=", ".join(TRIGGERS) + "; all if none is named")
    halving = commands.add_parser("halves", help="CIFAR-10 as two classes, without a trigger")
    halving.add_argument("--data", type=Path, required=True)
    halving.add_argument("--out", type=Path, required=True)
    scoring = commands.add_parser("score")
    scoring.add_argument("audit", type=Path)
    scoring.add_argument("poisons", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "make":
        unknown = [name for name in arguments.triggers if name not in TRIGGERS]
        if unknown:
            parser.error(f"no such trigger: {', '.join(unknown)} (there are {', '.join(TRIGGERS)})")
        for name in arguments.triggers or TRIGGERS:
            make(arguments.data, arguments.out, name)
    elif arguments.command == "halves":
        halves(arguments.data, arguments.out)
    else:
        score(arguments.audit, arguments.poisons)


if __name__ == "__main__":
    main()
