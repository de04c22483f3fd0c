"""Turn the votes of users into rows to train on: cap, set aside, agree, split. Nothing is dropped without a count.

A vote is one user's judgement of an item: of two answers to a prompt (the first is better or not), or of one answer
(good or bad). Items of the same texts are one item, whatever answer ids they had.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from math import ceil
from statistics import median
from typing import Any, NamedTuple

from alignlab.data.splits import hash_fraction
from alignlab.preferences.consensus import Vote, dawid_skene, majority

FEWEST_USERS = 5  # with fewer users, none is held out
FEWEST_FOR_OUTLIERS = 3  # users
MANY, FEW, FAR = 10, 10, 0.5  # see alignlab.serving.store.queries, whose table of influence names the same users
HARM_SHARE = 0.5  # of the votes against an answer, from which a kind of harm counts


class Judgement(NamedTuple):
    """One user's judgement of an item; `first` says that the first answer is better, or that the only one is good."""

    source: str  # compare, label, correction or verdict
    user: str
    feedback_id: str
    prompt: list[dict[str, str]]
    answers: tuple[str, ...]
    first: bool
    harms: tuple[str, ...]

    @property
    def item(self) -> str:
        """Return the hash of the prompt and the answers."""
        texts = json.dumps([self.prompt, self.answers], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Item(NamedTuple):
    """An item with all judgements of it."""

    judgements: list[Judgement]

    @property
    def sources(self) -> set[str]:
        """Return the kinds of feedback that the item has."""
        return {judgement.source for judgement in self.judgements}


def judgements_of(rows: Sequence[Mapping[str, Any]]) -> list[Judgement]:
    """Return the judgements in exported rows; the answers of a pair are sorted, so that equal pairs are one item."""
    judgements = []
    for row in rows:
        about = {"source": row["source"], "user": row["annotator"], "feedback_id": row["feedback_id"]}
        if "chosen" in row:
            chosen, rejected = (row[side][-1]["content"] for side in ("chosen", "rejected"))
            answers = (min(chosen, rejected), max(chosen, rejected))
            judgement = Judgement(**about, prompt=row["prompt"], answers=answers, first=chosen == answers[0], harms=())
        else:
            answer, harms = (row["completion"][-1]["content"],), tuple(row.get("harms", ()))
            judgement = Judgement(**about, prompt=row["prompt"], answers=answer, first=row["label"], harms=harms)
        judgements.append(judgement)
    return judgements


def drop_repeats(judgements: Sequence[Judgement], aside: Counter[str]) -> list[Judgement]:
    """Return the last judgement of each user on each item, in the order of the first."""
    latest = {(judgement.user, judgement.item): judgement for judgement in judgements}
    aside["repeated by the same user"] += len(judgements) - len(latest)
    return list(latest.values())


def drop_users(judgements: Sequence[Judgement], users: Collection[str], aside: Counter[str]) -> list[Judgement]:
    """Return the judgements of all other users."""
    kept = [judgement for judgement in judgements if judgement.user not in users]
    aside["of a user who is an outlier"] += len(judgements) - len(kept)
    return kept


def cap_users(judgements: Sequence[Judgement], max_share: float, aside: Counter[str]) -> list[Judgement]:
    """Return at most `max_share` of the judgements from each user, chosen by the hash of the feedback.

    Where there are so few users that not all can stay below the share, each has an equal part.
    """
    users = Counter(judgement.user for judgement in judgements)
    limit = max(1, largest_cap(list(users.values()), max(max_share, 1 / max(1, len(users)))))
    kept: Counter[str] = Counter()
    chosen = set()
    for place in sorted(range(len(judgements)), key=lambda place: hash_fraction(judgements[place].feedback_id)):
        user = judgements[place].user
        if kept[user] < limit:
            kept[user] += 1
            chosen.add(place)
    aside["above a user's largest share"] += len(judgements) - len(chosen)
    return [judgement for place, judgement in enumerate(judgements) if place in chosen]


def largest_cap(counts: Sequence[int], share: float) -> int:
    """Return the largest number c of judgements per user for which c is at most `share` of all that are then kept."""
    for cap in range(max(counts, default=1), 0, -1):
        if cap <= ceil(share * sum(min(count, cap) for count in counts)):
            return cap
    return 1


def held_out_users(users: Collection[str], share: float) -> set[str]:
    """Return the users that are held out, by the hash of their names; none where there are fewer than five."""
    return {user for user in users if hash_fraction(f"user {user}") < share} if len(users) >= FEWEST_USERS else set()


def items_of(judgements: Sequence[Judgement]) -> dict[str, Item]:
    """Return the judgements by item."""
    by_item: dict[str, Item] = defaultdict(lambda: Item([]))
    for judgement in judgements:
        by_item[judgement.item].judgements.append(judgement)
    return dict(by_item)


def agree(items: Mapping[str, Item], how: str) -> dict[str, float]:
    """Return the probability that the first answer is better, or that the only one is good, by item.

    `dawid_skene` estimates it where several users judged an item, from pairs and from single answers apart.
    """
    labels: dict[str, float] = {}
    for answers in (1, 2):
        votes = [
            Vote(name, judgement.user, judgement.first)
            for name, item in items.items()
            for judgement in item.judgements
            if len(judgement.answers) == answers
        ]
        several = len({vote.labeler for vote in votes}) > 1
        if votes:
            labels |= dawid_skene(votes).labels if how == "dawid_skene" and several else majority(votes)
    return labels


def harms_of(item: Item) -> list[str]:
    """Return the kinds of harm that at least half of those name who call an answer bad."""
    bad = [judgement for judgement in item.judgements if not judgement.first]
    names = Counter(name for judgement in bad for name in set(judgement.harms))
    return sorted(name for name, count in names.items() if count >= HARM_SHARE * len(bad))


def row_of(name: str, item: Item, label: float, kind: str) -> dict[str, Any]:
    """Return an item as a prepared row, the better answer first; its id begins with the kind of feedback."""
    first = item.judgements[0]
    source = "correction" if "correction" in item.sources else first.source
    row = {"id": f"{source}/{name}", "kind": kind, "made_by": "", "prompt": first.prompt, "cut_off": [], "context": []}
    if len(first.answers) == 1:
        rating = {"label": float(label > 0.5), "weight": abs(2 * label - 1), "rated": True}
        return {**row, "completions": list(first.answers), **rating, "harms": harms_of(item) if label < 0.5 else []}
    better = first.answers if label >= 0.5 else first.answers[::-1]
    sure = {"label": max(label, 1 - label), "weight": 1.0, "rated": False, "harms": []}
    return {**row, "completions": list(better), **sure}


def outliers(judgements: Sequence[Judgement]) -> set[str]:
    """Return the users who gave far more feedback, or another share of good labels, than the other users.

    The limits are those of the server's table of influence; fewer than three users have no outliers.
    """
    given = Counter(judgement.user for judgement in judgements)
    if len(given) < FEWEST_FOR_OUTLIERS:
        return set()
    labels: dict[str, list[bool]] = defaultdict(list)
    for judgement in judgements:
        if judgement.source == "verdict":
            labels[judgement.user].append(judgement.first)
    shares = {user: sum(good) / len(good) for user, good in labels.items() if len(good) >= FEW}
    middle = median(shares.values()) if len(shares) >= FEWEST_FOR_OUTLIERS else 0.0
    far = {user for user, share in shares.items() if abs(share - middle) > FAR}
    most = MANY * median(given.values())
    return {user for user, count in given.items() if count > most} | (
        far if len(shares) >= FEWEST_FOR_OUTLIERS else set()
    )
