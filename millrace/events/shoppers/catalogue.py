"""A made-up shop: products with categories, prices, popularity, and others that go with them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from millrace.events import build
from millrace.v1.item_pb2 import Item

ZIPF_EXPONENT = 0.8
"""Popularity of the r-th product is 1/r^0.8. Requests for web pages follow 0.64-0.83 (Breslau et al., 1999)."""
RELATED = 5
"""Products that go with one product: few, so that co-visitation finds them within minutes."""

# Typical price of each category; prices spread around it by a factor of two or so.
CATEGORIES: Mapping[str, float] = {
    "shoes": 70.0,
    "jackets": 110.0,
    "shirts": 30.0,
    "trousers": 55.0,
    "bags": 60.0,
    "watches": 140.0,
    "hats": 22.0,
    "scarves": 25.0,
    "sportswear": 40.0,
    "jewellery": 90.0,
}
_COLOURS = ("red", "blue", "green", "black", "white", "grey", "yellow", "brown")
_STYLES = ("classic", "slim", "light", "warm", "long", "short", "soft", "bold")


@dataclass(frozen=True, slots=True)
class Product:
    """One product; ``related`` are places in the catalogue."""

    item_id: str
    title: str
    category: str
    tags: tuple[str, ...]
    price: float
    related: tuple[int, ...]

    def item(self) -> Item:
        """The catalogue entry."""
        return build.item(self.item_id, title=self.title, category=self.category, tags=self.tags, price=self.price)


class Catalogue:
    """Products in the order of their popularity, the most popular first; the same for the same seed."""

    def __init__(self, size: int, seed: int) -> None:
        rng = random.Random(seed)
        names = list(CATEGORIES)
        categories = [rng.choice(names) for _ in range(size)]
        self.places: Mapping[str, Sequence[int]] = {
            name: places for name in names if (places := [i for i, own in enumerate(categories) if own == name])
        }
        self.products = [self._product(place, category, rng) for place, category in enumerate(categories)]
        weights = [(rank + 1) ** -ZIPF_EXPONENT for rank in range(size)]
        self._everything = range(size)
        self._weights = list(accumulate(weights))
        self._weights_in = {
            name: list(accumulate(weights[place] for place in places)) for name, places in self.places.items()
        }

    def popular(self, rng: random.Random, category: str | None = None) -> int:
        """Place of a product, chosen by popularity, of this category if one is given."""
        if category is None:
            return rng.choices(self._everything, cum_weights=self._weights)[0]
        return rng.choices(self.places[category], cum_weights=self._weights_in[category])[0]

    def _product(self, place: int, category: str, rng: random.Random) -> Product:
        colour, style = rng.choice(_COLOURS), rng.choice(_STYLES)
        same = self.places[category]
        return Product(
            item_id=f"{category}-{place:05d}",
            title=f"{style.capitalize()} {colour} {category} no. {place}",
            category=category,
            tags=(colour, style),
            price=round(CATEGORIES[category] * rng.lognormvariate(0, 0.4), 2),
            related=tuple(other for other in rng.sample(same, min(RELATED + 1, len(same))) if other != place)[:RELATED],
        )
