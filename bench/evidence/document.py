"""docs/evidence.md from the results of the replays: tables with the mean and a 95 % interval over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backend.replay.affordable import SMALL
from backend.replay.curves import Point, interval, summary
from backend.settings import Settings
from bench.evidence.replays import BATCH_SHARE, BATCHES, FIRST_SEED, SEEDS, STRATEGIES, DataSet
from bench.evidence.tables import number, signed, table, verdict

Results = Mapping[tuple[str, int, str], Sequence[Point]]
SHARE = Settings.model_fields["corrected_share"].default
COUNTS = [f"{BATCH_SHARE * step:.0%} reviewed" for step in range(BATCHES + 1)]
SINGLE = ("disagreement", "entropy", "margin", "bald", "coverage")
SUSPECTS = {
    "loop": "the loop's (image and record)",
    "image": "the image alone",
    "cleanlab self_confidence": "cleanlab, self-confidence",
    "cleanlab normalized_margin": "cleanlab, normalised margin",
    "cleanlab confidence_weighted_entropy": "cleanlab, confidence-weighted entropy",
}


class Figure(NamedTuple):
    """A figure of a point: its title, and which of the point's mappings has it under which name."""

    title: str
    of: str
    name: str

    def at(self, point: Point) -> float | None:
        found: Mapping[str, float | None] = getattr(point, self.of)
        return found[self.name]


LEFT = Figure("Wrong labels left (share)", "figures", "wrong_labels_left")
FOUND = Figure("Errors found (share)", "figures", "errors_found")
F1, AUC, ACCURACY, ECE = (
    Figure(f"{title} of all images", "unseen", name)
    for title, name in (("Macro F1", "macro_f1"), ("AUC", "auc"), ("Accuracy", "accuracy"), ("ECE", "ece"))
)
HELD_F1, HELD_AUC = (
    Figure("Macro F1 of the hold-out", "figures", "macro_f1"),
    Figure("AUC of the hold-out", "figures", "auc"),
)


def written(sets: Sequence[DataSet], results: Results) -> str:
    """The document (Markdown)."""
    parts = [_about()]
    for chosen in sets:
        found = {
            name: {
                seed: points
                for (data, seed, of), points in sorted(results.items())
                if (data, of) == (chosen.name, name)
            }
            for name in STRATEGIES
        }
        parts.append(f"## {chosen.name}\n")
        if not found["hybrid"]:
            parts.append("Not replayed: the data set is absent, or no replay of it has ended.\n")
            continue
        parts += [_material(chosen, found), _suspects(found), _curves(found)]
        if chosen.seeds >= SEEDS:  # of a few seeds nothing is reached
            parts += [_goals(chosen, found), _estimates(found)]
    return "\n".join(parts)


By = Mapping[str, Mapping[int, Sequence[Point]]]


def _about() -> str:
    share = f"{BATCHES} batches of {BATCH_SHARE:.0%} of the images each"
    learning = ", ".join(f"{name} {value}" for name, value in SMALL.items() if name != "image_size")
    return f"""# Evidence

Made by `make evidence` (`python -m bench.evidence`), which goes on where it was stopped. Each figure is the mean over
seeds with the 95 % interval of that mean (Student's); differences are paired by seed. The loop is the live one, with an
oracle in Label Studio's place: {share}, a training after each.
Learning is kept small, so that two cores do all of it in hours:
{learning}.
A seed draws the images (phantoms: makes them), the wrong labels, the folds, the hold-out (15 %, whole patients, never
trained on) and the training. Seeds start at {FIRST_SEED}. Formulas, weights and the constants of the estimate were
chosen on phantoms of the seeds 11 and 101 and on other draws of wrong labels, but on the same images of busbra and
ddti; sizes, and the bound of corrections, on phantoms of seed 900. None of these is among the seeds here.

Strategies: hybrid (`auto`, here find-errors), its single parts disagreement, uncertainty (entropy, margin, bald) and
coverage, random, and queue: hybrid as it is served, a fifth of it drawn at random (control arm, hold-out). Backbones
are trained anew once {SHARE:.0%} of the labels, by the controls' weights, were corrected (`CORRECTED_SHARE`);
kept is hybrid without that. Strategies that take long, or are far from the best, have fewer seeds. All is about the
first control.

Accuracy, macro F1, AUC and ECE compare answers with the truth. A hold-out of 15 % is small, and a model that is a
little better does not show on it. So they are given of all images as well, each judged by models that saw neither it
nor another image of its patient: out of fold, and in the hold-out by all.
"""


def _material(chosen: DataSet, found: By) -> str:
    points = list(found["hybrid"].values())
    wrong = interval([float(rows[0].true_wrong) for rows in points])
    how = (
        "their own wrong labels, 5 % of each column"
        if not chosen.noise
        else f"{chosen.noise:.0%} of them exchanged at random"
    )
    return (
        f"{len(points)} seeds, label config `{chosen.label_config.name}`"
        f"{f', {chosen.images} images a seed' if chosen.images else ''}, {chosen.image_size} pixels;"
        f" labels on record: {how}. Wrong labels of the first control outside the hold-out:"
        f" {number(wrong, 1)}.{chosen.note and f' {chosen.note}'}\n"
    )


def _suspects(found: By) -> str:
    """Rankings of wrong labels before any review."""
    shown = summary("hybrid", [point for rows in found["hybrid"].values() for point in rows])["suspects"]
    rows = [
        [SUSPECTS.get(name, name), *(number(values[figure], 3) for figure in ("auroc", "precision", "first_tenth"))]
        for name, values in shown.items()
    ]
    text = "Which labels are wrong, told by the same out-of-fold probabilities before any review:\n\n"
    return text + table(["ranking", "AUROC", "precision at the true count", "errors in the first tenth"], rows)


def _curves(found: By) -> str:
    text = ""
    for figure in (LEFT, FOUND, F1, AUC, ACCURACY, ECE, HELD_F1, HELD_AUC):
        rows = []
        for name in STRATEGIES:
            if found[name]:
                said = summary(name, [point for points in found[name].values() for point in points])
                curves = said["unseen"] if figure.of == "unseen" else said
                rows.append([name, str(said["seeds"]), *(number(value, 3) for value in curves[figure.name])])
        text += f"{figure.title}:\n\n" + table(["strategy", "seeds", *COUNTS], rows) + "\n"
    rows = []
    for figure in (FOUND, F1, AUC, ACCURACY, HELD_F1, HELD_AUC):
        steps = [_over_random(found, figure, [step]) for step in range(1, BATCHES + 1)]
        whole = _over_random(found, figure, range(1, BATCHES + 1))
        rows.append([figure.title, *(signed(value) for value in [*steps, whole])])
    return text + "Hybrid less random, paired by seed:\n\n" + table(["", *COUNTS[1:], "all"], rows)


def _over_random(found: By, figure: Figure, steps: Sequence[int]) -> list[float] | None:
    """[mean, low, high] of the paired difference, averaged over these batches."""
    differences = []
    for seed in found["hybrid"].keys() & found["random"].keys():
        one, other = found["hybrid"][seed], found["random"][seed]
        pairs = [(figure.at(one[step]), figure.at(other[step])) for step in steps]
        if any(a is None or b is None for a, b in pairs):
            continue
        differences.append(sum((a or 0.0) - (b or 0.0) for a, b in pairs) / len(pairs))
    return interval(differences) if differences else None


def _goals(chosen: DataSet, found: By) -> str:
    """What issue 4 asks of this data set, and whether it was reached."""
    lines = []
    hybrid, random = found["hybrid"], found["random"]
    if random:
        tenth, chance = _mean(hybrid, 2, FOUND), _mean(random, 2, FOUND)
        times = tenth / chance if chance else float("inf")
        best = _beside_best(found)
        beside = f", and {best:.2f} of the best single strategy on the seeds of both" if best is not None else ""
        lines.append(
            f"In the first 10 % reviewed hybrid finds {tenth:.1%} of the errors, {times:.1f} times what random"
            f" finds{beside} (goal: 4{', or 0.9' if best is not None else ''}):"
            f" {verdict(times >= 4 or (best is not None and best >= 0.9))}."
        )
    first = next(iter(hybrid.values()))[0].suspects
    for figure, name in (("auroc", "AUROC"), ("precision", "precision at the true count")):
        means = {
            ranking: _average([rows[0].suspects[ranking][figure] for rows in hybrid.values()]) for ranking in first
        }
        best = max(value for ranking, value in means.items() if ranking.startswith("cleanlab"))
        lines.append(
            f"Suspects by {name}: loop {means['loop']:.3f}, image alone {means['image']:.3f}, the best of cleanlab"
            f" {best:.3f}: {verdict(means['loop'] >= best - 1e-9)}."
        )
    if chosen.folder is None:
        left = _mean(hybrid, BATCHES, LEFT)
        lines.append(
            f"After 15 % reviewed {left:.2%} of the labels are wrong (goal: under 1 %): {verdict(left < 0.01)}."
        )
        for figure in (F1, HELD_F1):
            rise = interval([(figure.at(rows[-1]) or 0.0) - (figure.at(rows[0]) or 0.0) for rows in hybrid.values()])
            lines.append(
                f"{figure.title} moves by {signed(rise)} (goal: it rises, beyond the interval):"
                f" {verdict(rise is not None and rise[1] > 0)}."
            )
    for figure in (FOUND, F1, AUC):
        steps = [_over_random(found, figure, [step]) for step in range(1, BATCHES + 1)]
        whole = _over_random(found, figure, range(1, BATCHES + 1))
        if whole is None or any(step is None for step in steps) or not random:
            continue
        below = [f"{BATCH_SHARE * (at + 1):.0%}" for at, step in enumerate(steps) if step is not None and step[2] < 0]
        lower = [f"{BATCH_SHARE * (at + 1):.0%}" for at, step in enumerate(steps) if step is not None and step[0] < 0]
        lines.append(
            f"Learning curve, {figure.title}: hybrid beyond doubt below random at {', '.join(below) or 'no budget'}, in"
            f" the mean below at {', '.join(lower) or 'no budget'}; on average {signed(whole)} (goal: not below, and"
            f" above on average, beyond the interval): {verdict(not below and whole[1] > 0)}."
        )
    return "Goals:\n\n" + "".join(f"- {line}\n" for line in lines)


def _beside_best(found: By) -> float | None:
    """What hybrid finds in the first 10 %, by what the best single strategy does, each on the seeds that both have."""
    ratios = []
    for name in SINGLE:
        both = found[name].keys() & found["hybrid"].keys()
        one, other = ({seed: rows[seed] for seed in both} for rows in (found["hybrid"], found[name]))
        if both and (share := _mean(other, 2, FOUND)):
            ratios.append(_mean(one, 2, FOUND) / share)
    return min(ratios, default=None)


def _estimates(found: By) -> str:
    """The estimate of wrong labels after each batch: what it says of all, found and left."""
    rows = []
    for name in ("queue", "hybrid", "random"):
        for step in range(1, BATCHES + 1):
            said = [(points[step].estimated_wrong, points[step].true_wrong) for points in found[name].values()]
            there = [(guess, true) for guess, true in said if guess is not None]
            if not there:
                continue
            total, true = sum(guess[0] for guess, _ in there), sum(true for _, true in there)
            held = sum(guess[1] <= true <= guess[2] for guess, true in there)
            width = interval([guess[2] - guess[1] for guess, _ in there])
            rows.append(
                [
                    name,
                    f"{BATCH_SHARE * step:.0%}",
                    f"{total / true - 1:+.0%}",
                    f"{held} of {len(there)}",
                    number(width, 1),
                ]
            )
    text = "How many labels are wrong: the estimate after so many reviews (goal: bias at most 15 %, the truth"
    text += " held by 90 % of the intervals):\n\n"
    return text + table(["reviews picked by", "reviewed", "bias", "interval holds the truth", "its width"], rows)


def _mean(rows: Mapping[int, Sequence[Point]], step: int, figure: Figure) -> float:
    return _average([figure.at(points[step]) for points in rows.values()])


def _average(values: Sequence[float | None]) -> float:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else float("nan")
