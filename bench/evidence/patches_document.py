"""docs/evidence-masks.md from the results of the replays: tables with the mean and a 95 % interval over seeds."""

from collections.abc import Mapping, Sequence, Set

from backend.replay.curves import interval
from backend.replay.patch_curves import AT, RIVAL, differences, paired_p, summary
from backend.replay.patch_run import COUNTS, REFIT, SMALL, Moment
from backend.replay.sites import KEPT, LEARNT, LONGEST, PATCH, POOL, TESTED
from bench.evidence.patches import FEWER, FIRST_SEED, STRATEGIES, Pair, Results
from bench.evidence.tables import number, signed, table, verdict

By = Mapping[str, Mapping[int, Sequence[Moment]]]
TITLES = {
    "dice": "Dice at the target, on images that are never corrected",
    "source_dice": "Dice at the source, on images never learnt from",
    "clicks": "Clicks so far (corners of the outlines of what had to be changed)",
    "foreground_pixels": "True foreground pixels in the corrected patches",
    "seconds": "Seconds of one core so far, to choose and to train",
}
PAPER = "0.66 to 0.84"


def written(pairs: Sequence[Pair], results: Results) -> str:
    """The document (Markdown)."""
    parts, reached = [_about({name for _, _, name in results})], []
    for pair in pairs:
        found = {
            name: {
                seed: moments
                for (data, seed, of), moments in sorted(results.items())
                if (data, of) == (pair.name, name)
            }
            for name in STRATEGIES
        }
        parts.append(f"## {pair.name}: {pair.source} to {pair.target}\n")
        if not found["hybrid"]:
            parts.append("Not replayed: the data set is absent, or no replay of it has ended.\n")
            continue
        parts += [_curves(found), _ahead(found), _forgotten(found)]
        reached.append(_better(found))
    goal = f"On {sum(reached)} of {len(reached)} pairs hybrid is better than {RIVAL} after {AT} patches with p < 0.05"
    parts.append(f"## Goals\n\n- {goal} (goal: at least 2 of 3): {verdict(sum(reached) >= 2)}.")
    parts += [line for pair in pairs for line in _gain(pair, results)]
    return "\n".join(parts).rstrip() + "\n"


def _about(replayed: Set[str]) -> str:
    fewer = ", ".join(f"{name} {count}" for name, count in FEWER.items() if name in replayed)
    missing = ", ".join(name for name in STRATEGIES if name not in replayed)
    seeds = f"Seeds are fewer where they take long: {fewer} at most. " if fewer else ""
    seeds += f"Not replayed yet: {missing}. " if missing else ""
    return f"""# Evidence: masks

Made by `python -m bench.evidence --masks`, which goes on where it was stopped; a seed's replays are those of
`second-look simulate <folder> --label-config <config> --source <site> --target <site>`. A model of one site comes to
another. There patches of {PATCH} pixels are chosen, an oracle corrects them with the truth, and after
{", ".join(map(str, COUNTS[1:]))} of them the model trains on; nothing else of the target is ever learnt from.
Each figure is the mean over seeds with the 95 % interval of that mean (Student's); differences are paired by seed, and
p is that of the paired t test, two-sided.

What chooses, trains and predicts is what the live loop has (`backend/segmentation`). Learning is kept small:
{SMALL.folds} members of {SMALL.backbone} from scratch, {SMALL.steps} steps on crops of {SMALL.crop} pixels,
{SMALL.going_on().steps} steps each time it trains on, half of the crops of corrected patches.
Images are made smaller to {LONGEST} pixels on the longer side; patches are of these. A seed draws, by whole patients,
up to {LEARNT} images of the source to learn from and {KEPT} to test on, and up to {POOL} of the target to correct and
{TESTED} to test on; the folds; and the training. What is too thick for a crop, as lesions are, is looked at in four
times as many images of half the side, patches with them. Seeds start at {FIRST_SEED}; what was tuned was tuned on few
others of the same data sets: how patches are chosen on the seeds 0, 1, 2, 1000 and 1001, rates and sizes on 900, 901
and 1000.

Strategies: hybrid (patches of every kind, by the attention that each kind has, as the live loop chooses), the rule of
Uncertainty-Guided Annotation (paper), random, and {RIVAL}: a third of the patches from anywhere, a third by the
predicted foreground, a third by its border (nnActive). `{REFIT}`: each time trained anew from starting weights, on the
same data. {seeds}Before these replays hybrid chose by attention and
unlikeness, and did worse than {RIVAL} on the seeds that the new choice was then tried on.
"""


def _curves(found: By) -> str:
    text = ""
    for figure, title in TITLES.items():
        rows = []
        for name, seeds in found.items():
            if seeds:
                made = summary(name, seeds, None)
                digits = 3 if "dice" in figure else 0
                rows.append([name, str(made["seeds"]), *(number(value, digits) for value in made[figure])])
        text += f"{title}:\n\n" + table(["strategy", "seeds", *map(_patches, COUNTS)], rows) + "\n"
    return text


def _ahead(found: By) -> str:
    rows = []
    for name in STRATEGIES:
        if name == RIVAL or not found[name]:
            continue
        cells = []
        for count in COUNTS[1:]:
            each = differences(found[name], found[RIVAL], count)
            p = paired_p(each)
            cells.append(signed(interval(each)) + ("" if p is None else f", p = {p:.3f}"))
        rows.append([name, *cells])
    return f"Dice at the target less that of {RIVAL}:\n\n" + table(["", *map(_patches, COUNTS[1:])], rows)


def _forgotten(found: By) -> str:
    """The warm start beside the refit, at both sites."""
    refit, warm = found[f"hybrid{REFIT}"], found["hybrid"]
    if not refit:
        return ""
    rows = [
        [title, *(signed(interval(differences(warm, refit, count, figure))) for count in COUNTS[1:])]
        for figure, title in (("dice", "target"), ("source_dice", "source"))
    ]
    return "Dice of the warm start less that of the refit, both hybrid:\n\n" + table(
        ["", *map(_patches, COUNTS[1:])], rows
    )


def _better(found: By) -> bool:
    each = differences(found["hybrid"], found[RIVAL], AT)
    p = paired_p(each)
    return p is not None and p < 0.05 and sum(each) > 0


def _gain(pair: Pair, results: Results) -> list[str]:
    """What 10 patches bring, beside what the paper says of its own data."""
    rises = [
        moment.dice - moments[0].dice
        for (data, _, name), moments in results.items()
        for moment in moments
        if (data, name, moment.patches) == (pair.name, "hybrid", AT)
    ]
    if not rises:
        return []
    rise = interval(rises)
    assert rise is not None
    return [
        f"- {pair.name}: {AT} patches of hybrid move the Dice at the target by {signed(rise)} (goal: a gain, beyond the"
        f" interval; the paper's is {PAPER}): {verdict(rise[1] > 0)}."
    ]


def _patches(count: int) -> str:
    return f"{count} patch{'' if count == 1 else 'es'}"
