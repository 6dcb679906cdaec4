"""How well descriptors find a person again: single-query CMC and mAP as Market-1501 defines them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch

from dhm.errors import InputError

JUNK = -1
"""Identity of gallery images that count neither as right nor as wrong; 0 is a distractor, right for no query."""
METRICS = ("euclidean", "cosine")
RANKS = (1, 5, 10)
SHOWN = max(RANKS)


@dataclass(frozen=True)
class Sightings:
    """Who was seen where, for a set of images.

    Attributes:
        identities: (N,) int64, `JUNK` and 0 as above.
        cameras: (N,) int64.
    """

    identities: torch.Tensor
    cameras: torch.Tensor

    def __len__(self) -> int:
        return len(self.identities)

    def at(self, index: torch.Tensor) -> "Sightings":
        """Those of some images."""
        return Sightings(self.identities[index], self.cameras[index])

    def to(self, device: torch.device) -> "Sightings":
        """The same on another device."""
        return Sightings(self.identities.to(device), self.cameras.to(device))


@dataclass(frozen=True)
class Ranking:
    """What a search found for each of Q queries.

    Attributes:
        average_precision: (Q,) mean precision at the places of the matches, in [0, 1].
        first_match: (Q,) place of the first match, counted from 1.
        found: (Q, 10) the nearest gallery images, best first, as indices into the gallery that was given;
            `JUNK` where it has fewer.
        right: (Q, 10) which of them are matches.
    """

    average_precision: np.ndarray
    first_match: np.ndarray
    found: np.ndarray
    right: np.ndarray

    def figures(self) -> dict[str, float]:
        """mAP and Rank-1, 5 and 10 (the share of queries with a match among so many), in percent."""
        ranks = {f"rank{k}": 100 * float(np.mean(self.first_match <= k)) for k in RANKS}
        return {"mAP": 100 * float(np.mean(self.average_precision)), **ranks}

    def arrays(self) -> dict[str, np.ndarray]:
        """The ranking as arrays for a file, in the smallest types that keep it."""
        return {
            "average_precision": self.average_precision,
            "first_match": self.first_match.astype(np.int32),
            "found": self.found.astype(np.int32),
            "right": self.right,
        }


@dataclass(frozen=True)
class Found:
    """The rankings of one search by metric, and whose descriptor it went by.

    Attributes:
        head: the classifier under which the descriptor lies.
        rankings: by "euclidean" and "cosine".
    """

    head: str
    rankings: Mapping[str, Ranking]

    def __len__(self) -> int:
        """How many queries were asked."""
        return len(self.rankings["euclidean"].first_match)

    def summary(self) -> dict[str, dict[str, float]]:
        """Figures in percent: mAP, rank1, rank5, rank10 by Euclidean distance, cosine_mAP ... by cosine."""
        cosine = {f"cosine_{name}": value for name, value in self.rankings["cosine"].figures().items()}
        return {self.head: {**self.rankings["euclidean"].figures(), **cosine}}

    def arrays(self) -> dict[str, np.ndarray]:
        """All rankings as arrays for a file."""
        named = {f"{metric}/{name}": array for metric, r in self.rankings.items() for name, array in r.arrays().items()}
        return {"head": np.array(self.head), **named}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Found":
        """The inverse of `arrays`.

        Raises:
            KeyError: an array is missing.
            ValueError: they are not those of one search.
        """

        def of(metric: str) -> Ranking:
            ranking = Ranking(*(arrays[f"{metric}/{field.name}"] for field in fields(Ranking)))
            queries, kinds = ranking.first_match.shape, "".join(array.dtype.kind for array in vars(ranking).values())
            shapes = [array.shape for array in vars(ranking).values()]
            if (
                len(queries) != 1
                or shapes != [queries, queries, (*queries, SHOWN), (*queries, SHOWN)]
                or kinds != "fiib"
            ):
                raise ValueError(f"its arrays {metric}/ are not those of one search")
            return ranking

        return cls(str(arrays["head"]), {metric: of(metric) for metric in METRICS})


@dataclass(frozen=True)
class SingleQuery:
    """A search for people: who is asked for, and who is in the gallery. Test images are queries, then the gallery."""

    query: Sightings
    gallery: Sightings

    def to(self, device: torch.device) -> "SingleQuery":
        """The same on another device."""
        return SingleQuery(self.query.to(device), self.gallery.to(device))

    def rank(self, features: torch.Tensor) -> dict[str, Ranking]:
        """Search by the descriptors (Q + G, D) of all test images; rankings by metric."""
        queries = len(self.query)
        return search(features[:queries], self.query, features[queries:], self.gallery)


def lacking_match(query: Sightings, gallery: Sightings) -> int | None:
    """The first query whose identity no other camera of the gallery shows; None if there is none."""
    for start, block in _blocks(query, 128):
        lacking = ~_matches(block, gallery).any(dim=1)
        if lacking.any():
            return start + int(lacking.int().argmax())
    return None


@torch.no_grad()
def search(
    query_features: torch.Tensor, query: Sightings, gallery_features: torch.Tensor, gallery: Sightings,
    block: int = 128,
) -> dict[str, Ranking]:  # fmt: skip
    """Rank the gallery for every query under the Market-1501 protocol, single query, by each of `METRICS`.

    A match is an image of the query's identity on another camera. Images of the identity on the query's own camera,
    and junk, are taken out of the ranking; distractors stay. Images at the same distance rank in the gallery's order.
    Average precision is the mean of the precisions at the matches, as most programs since have it; the program
    published with the data set averages precision over recall by trapezoids instead.

    Args:
        query_features: (Q, D) descriptors; compared in float64.
        gallery_features: (G, D).
        block: queries ranked at once; memory grows as block x G.

    Raises:
        InputError: shapes that do not fit, descriptors that are not finite, or a query without any match (for which
            average precision is not defined).
    """
    if query_features.shape != (len(query), gallery_features.shape[-1]) or len(gallery_features) != len(gallery):
        raise InputError(
            f"{len(query)} queries and {len(gallery)} gallery images do not fit descriptors of shapes "
            f"{tuple(query_features.shape)} and {tuple(gallery_features.shape)}"
        )
    if not len(query):
        raise InputError("there is no query to search for")
    if not (query_features.isfinite().all() and gallery_features.isfinite().all()):
        raise InputError("descriptors must be finite, but some are NaN or infinite")
    lost = lacking_match(query, gallery)
    if lost is not None:
        raise InputError(
            f"query {lost} (identity {int(query.identities[lost])}, camera {int(query.cameras[lost])}) has no match: "
            "no gallery image of its identity is from another camera"
        )
    transposed = gallery_features.double().T
    squares = transposed.square().sum(dim=0)
    lengths = squares.sqrt().clamp_min(1e-12)  # a zero descriptor is at right angles to all
    parts: dict[str, list[tuple[torch.Tensor, ...]]] = {metric: [] for metric in METRICS}
    for start, part in _blocks(query, block):
        products = query_features[start : start + block].double() @ transposed
        # What is the same for all images of a query, its own length, does not change their order.
        parts["euclidean"].append(_rank(squares - 2 * products, part, gallery))
        parts["cosine"].append(_rank(products.div_(lengths).neg_(), part, gallery))
    return {
        metric: Ranking(*(torch.cat(columns).cpu().numpy() for columns in zip(*found, strict=True)))
        for metric, found in parts.items()
    }


def _blocks(query: Sightings, size: int) -> Iterator[tuple[int, Sightings]]:
    for start in range(0, len(query), size):
        yield start, query.at(torch.arange(start, min(start + size, len(query)), device=query.identities.device))


def _same(query: Sightings, gallery: Sightings) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether identity and camera agree, (Q, G) each."""
    return (
        query.identities[:, None] == gallery.identities,
        query.cameras[:, None] == gallery.cameras,
    )


def _matches(query: Sightings, gallery: Sightings) -> torch.Tensor:
    """Which gallery images are right answers, (Q, G)."""
    identity, camera = _same(query, gallery)
    return identity & ~camera & (gallery.identities > 0)


def _rank(distances: torch.Tensor, query: Sightings, gallery: Sightings) -> tuple[torch.Tensor, ...]:
    """The columns of `Ranking` for a block of queries, from distances (Q, G) up to a constant a query; uses them up."""
    identity, camera = _same(query, gallery)
    distances.masked_fill_((identity & camera) | (gallery.identities == JUNK), torch.inf)
    right = _matches(query, gallery)
    places = _places_of_matches(distances, right)
    hits = torch.arange(1, places.shape[1] + 1, device=places.device)
    matches = right.sum(dim=1)
    precision = torch.where(hits <= matches[:, None], hits / places.double(), 0.0)
    nearest = _nearest(distances)
    found_right = right.gather(1, nearest.clamp_min(0)) & (nearest != JUNK)
    return precision.sum(dim=1) / matches, places[:, 0], nearest, found_right


def _places_of_matches(distances: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Places (from 1) of each query's matches in its ranking, nearest first, (Q, most); meaningless after the last.

    Only the matches are sorted; every other image is counted before the first of them that it precedes. The places are
    those of a full sort by (distance, index), which would cost several times as much.
    """
    queries, images = distances.shape
    most = int(right.sum(dim=1).max())
    columns = torch.arange(images, device=distances.device)
    index = torch.where(right, columns, images).topk(most, largest=False).values  # ascending, `images` where none is
    near = distances.gather(1, index.clamp_max(images - 1)).masked_fill_(index == images, torch.inf)
    near, order = near.sort(dim=1, stable=True)
    passed = torch.searchsorted(near, distances)  # how many matches are nearer than the image
    tied = near.gather(1, passed.clamp_max(most - 1)) == distances
    row, column = tied.nonzero(as_tuple=True)
    # Of those at the distance of a match (itself among them) the index decides: one search among triples.
    rows = torch.arange(queries, device=distances.device)[:, None]

    def key(row: torch.Tensor, nearer: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return (row * (most + 1) + nearer) * (images + 1) + index

    keys = key(rows, torch.searchsorted(near, near), index.gather(1, order)).flatten()
    found = torch.searchsorted(keys, key(row, passed[row, column], column), right=True)
    passed[row, column] = found - row * most
    counts = passed.new_zeros(queries, most + 1).scatter_add_(1, passed, torch.ones_like(passed))
    return 1 + counts.cumsum(dim=1)[:, :most]


def _nearest(distances: torch.Tensor) -> torch.Tensor:
    """The nearest images, of equals the first, (Q, 10); `JUNK` where there is none. Strikes them out of `distances`."""
    found = torch.full((len(distances), SHOWN), JUNK, device=distances.device)
    for place in range(min(SHOWN, distances.shape[1])):
        best = distances.argmin(dim=1, keepdim=True)
        left = distances.gather(1, best).isfinite()
        found[:, place : place + 1] = torch.where(left, best, JUNK)
        distances.scatter_(1, best, torch.inf)
    return found
