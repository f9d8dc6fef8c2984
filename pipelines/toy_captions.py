"""Captions of the toy photos: hashtags as people write them, with the truth about each beside.

A photo shows objects with textures at a place. Of these true words some are tagged, in one of several spellings or
languages, and some are left out; popular tags that say nothing about the photo are mixed in, and now and then a tag
that is plainly wrong. All of it follows Zipf's law, as hashtags do.
"""

from collections.abc import Sequence

from numpy.random import Generator

# canonical tag: itself first, then its synonyms, the common ones first
VOCABULARY: dict[str, tuple[str, ...]] = {
    "person": ("person", "people", "portrait", "gente", "人"), "cat": ("cat", "kitty", "kitten", "gato", "猫"),
    "dog": ("dog", "doggo", "puppy", "perro", "Собака"), "car": ("car", "cars", "auto", "coche"),
    "flower": ("flower", "flowers", "bloom", "flor"), "tree": ("tree", "trees", "árbol"),
    "bird": ("bird", "birds", "birdie", "oiseau"), "cup": ("cup", "coffee", "mug", "café"),
    "fish": ("fish", "fishes", "pez", "魚"), "house": ("house", "home", "casa", "haus"),
    "apple": ("apple", "apples", "manzana"), "butterfly": ("butterfly", "butterflies", "mariposa"),
    "sailboat": ("sailboat", "boat", "sailing", "voilier"), "shirt": ("shirt", "tshirt", "camisa"),
    "rabbit": ("rabbit", "bunny", "conejo"), "bus": ("bus", "autobus", "автобус"),
    "mushroom": ("mushroom", "mushrooms", "champiñón"), "plane": ("plane", "airplane", "avión"),
    "leaf": ("leaf", "leaves", "hoja"), "elephant": ("elephant", "elephants", "हाथी"),
    "teapot": ("teapot", "teatime", "théière"), "turtle": ("turtle", "tortoise", "tortuga"),
    "umbrella": ("umbrella", "parapluie"), "owl": ("owl", "owls", "búho"), "cactus": ("cactus", "cacti"),
    "guitar": ("guitar", "guitarra"), "pear": ("pear", "pears"), "balloon": ("balloon", "hotairballoon"),
    "snail": ("snail", "escargot"),
    "plain": ("plain", "minimal"), "striped": ("striped", "stripes", "rayas"),
    "dotted": ("dotted", "polkadot", "spotted"), "checkered": ("checkered", "plaid", "checks"),
    "marbled": ("marbled", "marble"), "furry": ("furry", "fluffy", "fuzzy"), "zigzag": ("zigzag", "chevron"),
    "meadow": ("meadow", "countryside", "field"), "beach": ("beach", "sea", "playa", "海"),
    "forest": ("forest", "woods", "wald"), "desert": ("desert", "dunes"), "night": ("night", "nightsky", "noche"),
    "room": ("room", "interior", "athome"), "snow": ("snow", "winter", "冬"), "city": ("city", "urban", "ciudad"),
}  # fmt: skip
NOISE = (
    "love", "instagood", "photooftheday", "beautiful", "happy", "cute", "picoftheday", "follow", "art", "tbt",
    "nofilter", "instadaily", "style", "summer", "amor", "weekend", "été", "写真", "2cool4u", "throwback_thursday",
)  # fmt: skip
SENTENCES = (
    "Look what I found.", "A {texture} {shape}!", "My {shape} again", "Good morning", "At the {place} today.",
    "No words needed", "{shape} at the {place}", "What do you think?", "One more {texture} one.", "So happy with this shot",
)  # fmt: skip


def zipf(r: Generator, size: int, power: float = 1.0) -> int:
    """A rank in 0..size-1 with probability proportional to 1 / (rank + 1) ** power."""
    weights = [(rank + 1) ** -power for rank in range(size)]
    return int(r.choice(size, p=[weight / sum(weights) for weight in weights]))


def write_caption(
    r: Generator, shapes: Sequence[str], texture: str, place: str
) -> tuple[str, list[dict[str, str]], list[str]]:
    """Caption of a photo, the truth per written tag, and the true tags left out.

    shapes: classes in the photo, the main one first. Each tag is {"tag" as written, "canonical", "kind"}, where kind is
    true (the canonical word), synonym, or noise (canonical is then empty).
    """
    true = list(dict.fromkeys([*shapes, texture, place]))
    chance = {shapes[0]: 0.88, texture: 0.72, place: 0.5}
    said = [word for word in true if r.random() < chance.get(word, 0.55)][:5]
    tags = []
    for word in said:
        pick = zipf(r, len(VOCABULARY[word]), 1.2)
        tags.append({"tag": VOCABULARY[word][pick], "canonical": word, "kind": "synonym" if pick else "true"})
    wrong = list(VOCABULARY)[zipf(r, len(VOCABULARY))] if r.random() < 0.05 else ""
    noise = [wrong] if wrong and wrong not in true else []
    noise += [NOISE[zipf(r, len(NOISE))] for _ in range(min(3, int(r.geometric(0.5)) - (len(tags) > 0)))]
    tags += [{"tag": tag, "canonical": "", "kind": "noise"} for tag in dict.fromkeys(noise)]
    tags = [tags[i] for i in r.permutation(len(tags))][:6]
    for tag in tags:
        style = r.random()
        if style < 0.16:
            tag["tag"] = tag["tag"].upper() if style < 0.04 else tag["tag"].capitalize()
    sentence = SENTENCES[int(r.integers(len(SENTENCES)))].format(shape=shapes[0], texture=texture, place=place)
    kept = {tag["canonical"] for tag in tags}
    return f"{sentence} {' '.join('#' + tag['tag'] for tag in tags)}", tags, [word for word in true if word not in kept]
