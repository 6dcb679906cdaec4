"""Search figures against a slow loop over queries, and against scikit-learn where the definitions meet."""

import numpy as np
import pytest
import torch

import dhm
from dhm.metrics.retrieval import JUNK, METRICS, RANKS, Found, Ranking, Sightings, SingleQuery, search


def slowly(query, gallery, distances):
    """The protocol in plain Python: one query after the other, one gallery image after the other."""
    precisions, cmc, lists = [], {k: 0 for k in RANKS}, []
    for q, (person, camera) in enumerate(query):
        candidates = []
        for g, (who, where) in enumerate(gallery):
            if who == JUNK or (who == person and where == camera):
                continue
            candidates.append((distances[q][g], g, who == person and who > 0))
        candidates.sort(key=lambda candidate: candidate[:2])
        seen, total = 0, 0.0
        for place, (_, _, right) in enumerate(candidates, start=1):
            if right:
                seen += 1
                total += seen / place
        precisions.append(total / seen)
        for k in RANKS:
            cmc[k] += any(right for _, _, right in candidates[:k])
        lists.append([(g, right) for _, g, right in candidates[: max(RANKS)]])
    figures = {f"rank{k}": 100 * count / len(query) for k, count in cmc.items()}
    return {"mAP": 100 * sum(precisions) / len(query), **figures}, precisions, lists


def distances_of(a: np.ndarray, b: np.ndarray, metric: str) -> list[list[float]]:
    """Written out pair by pair. Squared for Euclidean, exact for small integers; cosine by exact dot products."""
    if metric == "euclidean":
        return [[float(((x - y) ** 2).sum()) for y in b] for x in a]
    return [[-float(x @ y) / (np.sqrt(x @ x) * np.sqrt(y @ y)) for y in b] for x in a]


def sightings(pairs) -> Sightings:
    table = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return Sightings(table[:, 0], table[:, 1])


def agree(query, gallery, a, b, metric="euclidean", **options) -> Ranking:
    ranking = search(torch.tensor(a), sightings(query), torch.tensor(b), sightings(gallery), **options)[metric]
    figures, precisions, lists = slowly(query, gallery, distances_of(a, b, metric))
    assert ranking.figures() == pytest.approx(figures, rel=0, abs=1e-12 * 100)
    np.testing.assert_allclose(ranking.average_precision, precisions, rtol=0, atol=1e-12)
    for q, expected in enumerate(lists):
        got = [(g, r) for g, r in zip(ranking.found[q], ranking.right[q], strict=True) if g != JUNK]
        assert got == expected
    return ranking


def random_case(seed: int, queries: int = 23, gallery: int = 90, features: int = 6, levels: int | None = None):
    rng = np.random.default_rng(seed)
    query = [(int(rng.integers(1, 6)), int(rng.integers(1, 4))) for _ in range(queries)]
    seen = [(int(rng.integers(-1, 6)), int(rng.integers(1, 5))) for _ in range(gallery)]
    seen += [(person, 9) for person in range(1, 6)]  # so that everyone has a match
    if levels:
        draw = lambda n: rng.integers(0, levels, (n, features)).astype(float)  # noqa: E731
    else:
        draw = lambda n: rng.normal(size=(n, features))  # noqa: E731
    return query, seen, draw(queries), draw(len(seen))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", range(5))
def test_random_cases(seed: int, metric: str) -> None:
    agree(*random_case(seed), metric)


@pytest.mark.parametrize("seed", range(5))
def test_ties_rank_in_the_order_of_the_gallery(seed: int) -> None:
    """Coordinates 0 and 1 in two dimensions: at most three distances, so nearly everything is tied."""
    agree(*random_case(seed, features=2, levels=2))


def test_everything_tied() -> None:
    query, gallery, a, b = random_case(0)
    ranking = agree(query, gallery, a * 0, b * 0)
    kept = [g for g, (who, where) in enumerate(gallery) if who != JUNK and (who, where) != query[0]]
    assert ranking.found[0].tolist() == kept[:10]


def test_zero_descriptor_is_at_right_angles_by_cosine() -> None:
    """Cosine of a zero vector counts as 0: farther than a friend, nearer than an opposite."""
    gallery = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [2.0, 1.0]])
    people = sightings([(1, 2), (2, 2), (3, 2)])
    ranking = search(torch.tensor([[1.0, 0.0]]), sightings([(1, 1)]), gallery, people)["cosine"]
    assert ranking.found[0, :3].tolist() == [2, 1, 0]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_block_size_changes_nothing(block: int) -> None:
    agree(*random_case(11, levels=3), block=block)


def test_fewer_gallery_images_than_are_shown() -> None:
    ranking = agree([(1, 1)], [(1, 1), (2, 1), (JUNK, 2), (1, 2)], np.zeros((1, 2)), np.arange(8.0).reshape(4, 2))
    assert ranking.found.tolist() == [[1, 3] + [JUNK] * 8]
    assert ranking.right.tolist() == [[False, True] + [False] * 8]
    assert ranking.figures() == {"mAP": 50.0, "rank1": 0.0, "rank5": 100.0, "rank10": 100.0}


def test_own_camera_and_junk_are_out_of_the_ranking_and_distractors_are_in() -> None:
    places = np.arange(5.0)[:, None]
    gallery = [(7, 1), (JUNK, 2), (0, 2), (7, 2), (0, 1)]
    ranking = agree([(7, 1)], gallery, np.zeros((1, 1)), places)
    assert ranking.average_precision.tolist() == [0.5]  # behind one distractor
    assert ranking.first_match.tolist() == [2]


@pytest.mark.parametrize(
    ("gallery", "person"),
    [
        ([(2, 2), (3, 1)], 1),  # nobody of that identity
        ([(JUNK, 2), (JUNK, 3)], 1),  # all junk
        ([(1, 1), (1, 1), (2, 1)], 1),  # one camera for all
        ([(0, 2), (0, 3)], 0),  # a distractor is no one's match, not even another distractor's
    ],
)
def test_a_query_without_match_is_told(gallery: list, person: int) -> None:
    query = [(2, 5), (person, 1)]
    with pytest.raises(dhm.InputError, match=rf"^query 1 \(identity {person}, camera 1\) has no match"):
        search(torch.zeros(2, 3), sightings(query), torch.zeros(len(gallery) + 1, 3), sightings([*gallery, (2, 4)]))


def test_wrong_input_is_told() -> None:
    one = sightings([(1, 1)]), torch.zeros(2, 3), sightings([(1, 2), (1, 3)])
    with pytest.raises(dhm.InputError, match=r"do not fit descriptors of shapes \(1, 4\) and \(2, 3\)"):
        search(torch.zeros(1, 4), *one)
    with pytest.raises(dhm.InputError, match="must be finite"):
        search(torch.full((1, 3), torch.nan), *one)
    with pytest.raises(dhm.InputError, match="no query"):
        search(torch.zeros(0, 3), sightings([]), *one[1:])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_average_precision_is_scikit_learns_without_ties(metric: str) -> None:
    """With all removed images left out and no tie, it is the step-wise average precision."""
    average_precision_score = pytest.importorskip("sklearn.metrics").average_precision_score
    query, gallery, a, b = random_case(3)
    ranking = search(torch.tensor(a), sightings(query), torch.tensor(b), sightings(gallery))[metric]
    table = np.array(gallery)
    distances = np.array(distances_of(a, b, metric))
    for q, (person, camera) in enumerate(query):
        kept = (table[:, 0] != JUNK) & ~((table[:, 0] == person) & (table[:, 1] == camera))
        expected = average_precision_score(table[kept, 0] == person, -distances[q, kept])
        assert ranking.average_precision[q] == pytest.approx(expected, rel=0, abs=1e-12)


def test_rankings_survive_their_file(tmp_path) -> None:
    query, gallery, a, b = random_case(5)
    task = SingleQuery(sightings(query), sightings(gallery))
    features = torch.cat([torch.tensor(a), torch.tensor(b)])
    found = Found("B0", task.rank(features))
    np.savez_compressed(tmp_path / "found.npz", **found.arrays())
    with np.load(tmp_path / "found.npz") as arrays:
        again = Found.from_arrays(arrays)
    assert again.summary() == found.summary()
    assert len(again) == 23
    for metric in METRICS:
        np.testing.assert_array_equal(again.rankings[metric].found, found.rankings[metric].found)
        np.testing.assert_array_equal(again.rankings[metric].right, found.rankings[metric].right)


def test_the_figure_frames_matches_green_and_others_red() -> None:
    from matplotlib.colors import to_hex

    from dhm.plots.retrieval import RIGHT, WRONG, ranked_gallery, telling_queries

    query, gallery, a, b = random_case(7)
    task = SingleQuery(sightings(query), sightings(gallery))
    features = torch.cat([torch.tensor(a), torch.tensor(b)])
    one, two = (task.rank(f)["euclidean"] for f in (features, features.roll(1, dims=1).abs()))
    pixels = torch.arange(len(query) + len(gallery), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 4)
    chosen = telling_queries(one, two)
    gains = two.average_precision - one.average_precision
    assert gains[chosen[0]] == gains.min()
    assert gains[chosen[-1]] == gains.max()
    fig = ranked_gallery(pixels, {"dhm": two, "baseline": one}, chosen)
    rows = [fig.axes[i : i + 11] for i in range(0, len(fig.axes), 11)]
    assert [row[0].get_ylabel() for row in rows] == ["baseline", "DHM"] * 4
    for row, (which, ranking) in zip(rows, [(q, r) for q in chosen for r in (one, two)], strict=True):
        assert row[0].images[0].get_array()[0, 0, 0] == which
        for ax, index, right in zip(row[1:], ranking.found[which], ranking.right[which], strict=True):
            assert ax.images[0].get_array()[0, 0, 0] == len(query) + index
            assert to_hex(ax.patches[-1].get_edgecolor()) == (RIGHT if right else WRONG)
