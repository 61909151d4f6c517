"""Checks of the queue: what makes Label Studio serve by our order, and whether it did."""

from collections.abc import Iterator, Sequence

from scipy.stats import spearmanr

from backend.doctor.findings import Fault, error, known, warning
from backend.doctor.observed import ProjectFacts, Serving
from tasks.project import SAMPLING, TITLE
from tasks.queue import queue_name

LEAST = 8  # servings of each annotator to judge an order by
SHARE = 0.2  # of the servings that may be out of place: annotators go back, and lead times are not exact


def sampling(seen: ProjectFacts) -> Iterator[Fault]:
    """The project serves by prediction score."""
    value = known(seen.remote)["sampling"]
    if value != SAMPLING:
        yield error(
            f"the project's sampling is {value!r}: tasks are not served by our order",
            f"second-look setup --project {seen.id}; the worker sets it back too. Label Studio's settings page offers"
            " the choice under Annotation: leave it as it is there",
        )


def published(seen: ProjectFacts) -> Iterator[Fault]:
    """An order has been published."""
    stored = known(seen.stored)
    if stored.row.published is None:
        state = f"the last job is {stored.job.state}: {stored.job.step}" if stored.job else "no training has begun"
        yield warning(
            f"no order is published yet ({state}; {stored.tasks} tasks known)",
            "wait for the first training (second-look status shows it), or start it: second-look cycle"
            f" --project {seen.id}",
        )


def model_version(seen: ProjectFacts) -> Iterator[Fault]:
    """The project's version is the published one (a title of an ML backend there is the check `title`)."""
    number, version = known(seen.stored).row.published, known(seen.remote)["model_version"]
    titles = {TITLE, *(row["title"] for row in known(seen.ml_backends))}
    if number is not None and version != queue_name(number) and version not in titles:
        yield error(
            f"the project's version is {version or 'empty'}, the published one {queue_name(number)}: the order does"
            " not apply, and Label Studio serves at random",
            f"second-look setup --project {seen.id}; the worker sets it back too",
        )


def predictions(seen: ProjectFacts) -> Iterator[Fault]:
    """Label Studio still has the predictions of the published order."""
    stored = known(seen.stored)
    if stored.row.published is None:
        return
    name = queue_name(stored.row.published)
    there = known(seen.model_versions).get(name, 0)
    if there < stored.pushed:
        yield error(
            f"{stored.pushed - there} of {stored.pushed} predictions of {name} were deleted in Label Studio",
            "start second-look worker: it sends them again",
        )


def predictions_shown(seen: ProjectFacts) -> Iterator[Fault]:
    """Annotators are shown the predictions."""
    if not known(seen.remote)["show_collab_predictions"]:
        yield error(
            "the project does not show predictions (show_collab_predictions is off): annotators see neither labels nor"
            " reasons, and what they submit names no prediction",
            "switch 'Use predictions to prelabel tasks' on in Settings, Annotation",
        )


def head(seen: ProjectFacts) -> Iterator[Fault]:
    """Enough tasks of the published order wait: past its end Label Studio serves at random."""
    stored = known(seen.stored)
    if stored.row.published is not None and known(seen.wants_refill):
        yield error(
            f"{stored.waiting} tasks of the published order wait for {stored.active} annotators, fewer than the refill"
            " mark (three for each annotator, beside the one that each may hold)",
            "start second-look worker, which refills it; if it runs, see second-look status for its alarms",
        )


def overlap(seen: ProjectFacts) -> Iterator[Fault]:
    """Each task is annotated once, so that the order decides alone."""
    remote = known(seen.remote)
    if remote["maximum_annotations"] > 1:
        yield warning(
            f"each task is to be annotated {remote['maximum_annotations']} times: Label Studio serves those that others"
            " have begun first, at random among them",
            "set Annotations per task to 1 (Settings, Annotation) if the order matters more than second opinions",
        )
    if remote["show_overlap_first"]:
        yield warning(
            "tasks with a higher overlap are served before all others (show_overlap_first)",
            f"PATCH /api/projects/{seen.id}/ with show_overlap_first false",
        )


def overtaking(ranks: Sequence[int], allowed: int) -> int:
    """How many of the ranks, in the order of serving, came before more than `allowed` lower ones that followed later.

    Annotators hold a task each while they work, so in a queue that keeps its order no task overtakes more of those
    before it than there are other annotators.
    """
    return sum(sum(later < rank for later in ranks[place + 1 :]) > allowed for place, rank in enumerate(ranks))


def served_order(seen: ProjectFacts) -> Iterator[Fault]:
    """What was served lately followed the published order.

    No call shows it and asking for the next task would lock one, so it is judged by the annotations of the last days:
    the version and rank that each began from, in the order of serving.
    """
    stored = known(seen.stored)
    for version in sorted({row.version for row in stored.servings if row.version is not None}):
        served = _first_servings(stored.servings, version)
        ranks = [row.rank for row in served if row.rank is not None]
        people = len({row.by for row in served})
        if len(ranks) < LEAST * people:
            continue
        wrong = overtaking(ranks, people)
        if wrong > SHARE * len(ranks):
            rho = float(spearmanr(range(len(ranks)), ranks).statistic)
            yield error(
                f"{wrong} of the last {len(ranks)} tasks served from {queue_name(version)} came before more than"
                f" {people} that stood ahead of them (Spearman {rho:.2f}; 1 is the published order)",
                "mend what the checks sampling, title and model-version find. Where they find nothing: annotators must"
                " press 'Label All Tasks' (not 'Label Tasks As Displayed', nor open tasks in the Data Manager); and a"
                " project with more than one ProjectMember row is served at random, which no API shows: on Label"
                " Studio's machine, label-studio shell, then from projects.models import ProjectMember;"
                f" ProjectMember.objects.filter(project={seen.id}).delete()",
            )


def _first_servings(servings: Sequence[Serving], version: int) -> list[Serving]:
    """The first serving of each task from that version, in the order of serving."""
    ordered = sorted((row for row in servings if row.version == version), key=lambda row: row.at)
    return list({row.task: row for row in reversed(ordered)}.values())[::-1]


def served_outside(seen: ProjectFacts) -> Iterator[Fault]:
    """Annotators work on the published order while it has tasks."""
    servings = known(seen.stored).servings
    outside = [row for row in servings if row.version is None and row.head_open]
    if len(servings) >= LEAST and len(outside) > SHARE * len(servings):
        tasks = ", ".join(str(row.task) for row in outside[:5])
        yield warning(
            f"{len(outside)} of the last {len(servings)} annotations were not begun from the published order although"
            f" tasks of it waited (tasks {tasks}, ...)",
            "annotators must press 'Label All Tasks'; 'Label Tasks As Displayed' and tasks opened in the Data Manager"
            " are not the queue. It also happens while sampling, title or model-version is wrong",
        )
