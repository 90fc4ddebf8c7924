"""Points of a data set in the plane that a hand has moved, added or taken away."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from ncbook.training.data import Dataset

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What a hand did to training points: moved, index -> place; removed, indices; added, (x, y, class)."""

    moved: Mapping[int, Point] = dataclasses.field(default_factory=dict)
    added: Sequence[tuple[float, float, int]] = ()
    removed: Sequence[int] = ()

    def __bool__(self) -> bool:
        return bool(self.moved or self.added or self.removed)

    def apply(self, data: Dataset) -> Dataset:
        """The data set (N, 2) with these changes, what was added at its end.

        Raises: ValueError for data that are not points in the plane, and where a class would be left with no point.
        """
        if data.input_shape != (2,):
            raise ValueError(f"data must be points in the plane, with inputs (N, 2), got {data.input_shape}")
        inputs, targets = data.train_inputs.clone(), data.train_targets
        for index, place in self.moved.items():
            inputs[index] = torch.tensor(place)
        left = torch.ones(len(targets), dtype=torch.bool)
        left[list(self.removed)] = False
        new = torch.tensor([[x, y] for x, y, _ in self.added], dtype=inputs.dtype).reshape(-1, 2)
        kinds = torch.tensor([kind for *_, kind in self.added], dtype=targets.dtype)
        inputs, targets = torch.cat((inputs[left], new)), torch.cat((targets[left], kinds))
        if len(targets.unique()) < data.num_classes:
            raise ValueError("a class must keep at least one point")
        return dataclasses.replace(data, train_inputs=inputs, train_targets=targets)

    def then(self, size: int, *, move: Sequence[tuple[int, float, float]] = (),
             add: Sequence[tuple[float, float, int]] = (), remove: Sequence[int] = ()) -> Drawing:
        """These changes and more; size: points of the untouched data set, indices: those of the set as drawn so far.

        Raises: ValueError for an index that is out of range.
        """
        gone = set(self.removed)
        here = [index for index in range(size) if index not in gone]
        wanted = [*(index for index, *_ in move), *remove]
        if any(not 0 <= index < len(here) + len(self.added) for index in wanted):
            raise ValueError(f"points must be of those that are there, got {wanted}")
        moved, added = dict(self.moved), list(self.added)
        for index, x, y in move:
            if index < len(here):
                moved[here[index]] = (x, y)
            else:
                added[index - len(here)] = (x, y, added[index - len(here)][2])
        gone |= {here[index] for index in remove if index < len(here)}
        late = {index - len(here) for index in remove if index >= len(here)}
        added = [point for k, point in enumerate(added) if k not in late] + [(x, y, int(kind)) for x, y, kind in add]
        return Drawing({i: place for i, place in moved.items() if i not in gone}, tuple(added), tuple(sorted(gone)))
