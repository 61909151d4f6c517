import numpy as np

from tasks.ranking.patch_baselines import foreground_random_order, paper_scores, random_order
from tasks.ranking.patches import candidates, means


def test_the_papers_rule_is_its_code() -> None:
    unsure = np.random.default_rng(0).random((40, 50)).astype(np.float32) ** 3
    patches = candidates([(40, 50)], 16, 9)
    levels = np.floor(unsure * 255)
    expected = []
    for top, left in zip(patches.top, patches.left, strict=True):
        tile = levels[top : top + 16, left : left + 16]
        expected.append(100 * (tile > 0.8 * tile.max()).sum() + tile.sum())
    np.testing.assert_array_equal(paper_scores(unsure, patches.top, patches.left, 16), expected)


def test_by_the_papers_rule_a_patch_of_next_to_no_uncertainty_wins_and_by_ours_it_does_not() -> None:
    unsure = np.full((32, 64), 0.01, dtype=np.float32)
    unsure[:, 32:] = np.random.default_rng(0).random((32, 32)) ** 4
    patches = candidates([(32, 64)], 32, 32)
    paper = paper_scores(unsure, patches.top, patches.left, 32)
    ours = means(unsure, patches.top, patches.left, 32)
    assert paper[0] > paper[1] and ours[0] < ours[1]


def test_chance_is_uniform_and_never_overlaps() -> None:
    patches = candidates([(16, 16), (16, 16)], 8, 8)
    rng = np.random.default_rng(0)
    firsts = [int(random_order(patches, 3, rng)[0]) for _ in range(800)]
    counts = np.bincount(firsts, minlength=8)
    assert counts.min() > 60 and counts.max() < 140
    assert sorted(random_order(patches, 99, rng).tolist()) == list(range(8))
    crowded = candidates([(16, 16)], 9, 1)
    assert len(random_order(crowded, 99, rng)) == 1


def test_chance_that_knows_the_foreground_goes_there_two_times_in_three() -> None:
    masks = [np.zeros((64, 64), dtype=bool), np.zeros((64, 64), dtype=bool)]
    masks[1][4:12, 4:12] = True
    patches = candidates([(64, 64), (64, 64)], 16, 16)
    rng = np.random.default_rng(0)
    firsts = [int(foreground_random_order(patches, masks, 1, rng)[0]) for _ in range(600)]
    hit = np.mean([patches.image[row] == 1 and patches.top[row] == patches.left[row] == 0 for row in firsts])
    assert abs(hit - (2 / 3 + 1 / 3 / 32)) < 0.06
    assert len(set(foreground_random_order(patches, masks, 32, rng).tolist())) == 32
