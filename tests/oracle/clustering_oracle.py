"""Online Gaussian-mixture clustering as its rules read, face by face, all distances measured each time; scores pair by pair.

A cluster is a dict with its number, its sum, its faces, and what it keeps: {number of another: distance}.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


class SlowClustering:
    """The clusters after any number of faces."""

    def __init__(self, settings) -> None:
        self.settings = settings
        self.clusters: dict[int, dict[str, Any]] = {}
        self.num_faces = 0

    def add(self, feature) -> None:
        face = np.asarray(feature, np.float64)
        face = face / np.sqrt((face**2).sum())
        order = self.by_distance(face, self.clusters)
        distance, nearest = order[0] if order else (np.inf, None)
        if distance <= self.settings.fuse:
            self.clusters[nearest]["sum"] += face
            self.clusters[nearest]["faces"].append(self.num_faces)
            self.recluster(nearest)
        else:
            number = self.num_faces  # larger than all before
            self.clusters[number] = {"sum": face.copy(), "faces": [number], "keeps": {}}
            if distance <= self.settings.connect_weak and self.is_robust(nearest):
                self.connect(number, nearest, distance)
        self.num_faces += 1

    def centroid(self, number):
        return self.clusters[number]["sum"] / len(self.clusters[number]["faces"])

    def is_robust(self, number) -> bool:
        return len(self.clusters[number]["faces"]) >= self.settings.robust

    def by_distance(self, point, numbers):
        return sorted((float(np.sqrt(((self.centroid(n) - point) ** 2).sum())), n) for n in numbers)

    def recluster(self, updated) -> None:
        self.clusters[updated]["keeps"] = {}
        for cluster in self.clusters.values():
            cluster["keeps"].pop(updated, None)
        waiting = set(self.clusters) - {updated}
        while waiting:
            distance, other = self.by_distance(self.centroid(updated), waiting)[0]
            robust, other_robust = self.is_robust(updated), self.is_robust(other)
            if (robust and distance <= self.settings.fuse and not other_robust) or (
                not robust and distance <= self.settings.fuse
            ):
                self.fuse(updated, other)
                waiting = set(self.clusters) - {updated}
            elif (
                (robust and distance <= self.settings.connect)
                or (robust and distance <= self.settings.connect_weak and not other_robust)
                or (not robust and distance <= self.settings.connect_weak and other_robust)
            ):
                self.connect(updated, other, distance)
                waiting.remove(other)
            else:
                return

    def connect(self, first, second, distance) -> None:
        for owner, other in ((first, second), (second, first)):
            self.keep(owner, {**self.clusters[owner]["keeps"], other: distance})

    def keep(self, owner, candidates) -> None:
        nearest = sorted((distance, number) for number, distance in candidates.items())[: self.settings.connections]
        self.clusters[owner]["keeps"] = {number: distance for distance, number in nearest}

    def fuse(self, updated, other) -> None:
        gone = self.clusters.pop(other)
        self.clusters[updated]["sum"] += gone["sum"]
        self.clusters[updated]["faces"] += gone["faces"]
        moved = {number: distance for number, distance in gone["keeps"].items() if number != updated}
        self.clusters[updated]["keeps"].pop(other, None)
        self.keep(updated, {**moved, **self.clusters[updated]["keeps"]})
        for number, cluster in self.clusters.items():
            distance = cluster["keeps"].pop(other, None)
            if distance is not None and number != updated and updated not in cluster["keeps"]:
                self.keep(number, {**cluster["keeps"], updated: distance})

    def partition(self) -> set[frozenset[int]]:
        return {frozenset(cluster["faces"]) for cluster in self.clusters.values()}

    def identities(self) -> set[frozenset[int]]:
        """The faces of each connected component, by joining until nothing changes."""
        groups = [{number} for number in self.clusters]
        for owner, cluster in self.clusters.items():
            for other in cluster["keeps"]:
                touched = [group for group in groups if owner in group or other in group]
                groups = [group for group in groups if group not in touched] + [set().union(*touched)]
        return {frozenset(face for number in group for face in self.clusters[number]["faces"]) for group in groups}


def partition_of(labels) -> set[frozenset[int]]:
    """Labels as a set of sets of places."""
    groups: dict[int, set[int]] = {}
    for place, label in enumerate(np.asarray(labels).tolist()):
        groups.setdefault(label, set()).add(place)
    return {frozenset(group) for group in groups.values()}


def slow_pairwise(labels, truth) -> tuple[float, float]:
    """Precision and recall over all pairs, one by one; label -1 is in no pair."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    said = {(a, b) for a, b in pairs if labels[a] == labels[b] >= 0}
    true = {(a, b) for a, b in pairs if truth[a] == truth[b]}
    return (len(said & true) / len(said) if said else 1.0, len(said & true) / len(true) if true else 1.0)


def slow_bcubed(labels, truth) -> tuple[float, float]:
    """Precision and recall of each image, averaged; label -1 is a cluster of its own."""
    precision = []
    recall = []
    for place, (label, name) in enumerate(zip(labels, truth, strict=True)):
        cluster = {other for other, each in enumerate(labels) if each == label >= 0} | {place}
        identity = {other for other, each in enumerate(truth) if each == name}
        precision.append(len(cluster & identity) / len(cluster))
        recall.append(len(cluster & identity) / len(identity))
    return float(np.mean(precision)), float(np.mean(recall))
