"""Students: smaller networks that a Model's network has taught, each made once.

What was made is kept beside the draft, so that a killed run goes on from there. A network that
transformers cannot hold is kept as its graph alone; where another way is to follow, it is taught
once more.
"""

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from modelyard import inputs, targets
from modelyard.core.artefacts import ColumnState, Dataset, Model
from modelyard.core.digest import files_in
from modelyard.core.errors import SettingInvalid
from modelyard.core.events import Events, Noted
from modelyard.core.project import Project
from modelyard.core.rungs import RungName
from modelyard.inputs import networks
from modelyard.runtime.columns import Columns
from modelyard.runtime.encoded import Encoded, Ragged, each_of, of_rows, one_after_the_other
from modelyard.runtime.graph import Graph
from modelyard.runtime.runtime import columns_of
from modelyard.stages.candidates import Candidates
from modelyard.stages.rungs import share
from modelyard.stages.unlabelled import Unlabelled, unlabelled_rows

if TYPE_CHECKING:
    from modelyard.models.smaller import Smaller, Teaching

Ways = tuple[str, ...]
ABOUT, NETWORK, PLAIN = "about.txt", "network", "plain.onnx"
CALIBRATION_ROWS = 256
MOST_HELD = 2
"""Networks that are held in memory beside the teacher."""


@dataclass
class Students:
    """The networks by the ways that made them; () is the teacher, the trained network itself."""

    project: Project
    dataset: Dataset
    model: Model
    kept: Path
    events: Events
    _held: dict[Ways, Any] = field(default_factory=dict)

    @cached_property
    def teacher(self) -> Any:
        """The trained network; nothing changes it."""
        return networks.load(self.model.spec.columns, self.model.folder, self._width)

    @cached_property
    def columns(self) -> Columns:
        """What rows are encoded with."""
        return columns_of(self.model.spec, self.model.folder, inputs.find)

    @property
    def _width(self) -> int:
        answer = self.model.spec.target
        return targets.find(answer.kind).width(answer.state)

    def ways(self, names: Ways = ()) -> "dict[str, Smaller]":
        """The ways that a network can be made smaller by, by name, the least first."""
        from modelyard.models.smaller import ways

        return {each.name: each for each in ways(self.network(names), self._used)}

    def network(self, names: Ways) -> Any:
        """The network that these ways have made, one after the other."""
        if not names:
            return self.teacher
        if names not in self._held:
            self._held[names] = self._loaded(names) or self._made(names)
            for old in list(self._held)[:-MOST_HELD]:
                del self._held[old]
        return self._held[names]

    def plain_graph(self, names: Ways) -> Path:
        """The fp32 graph of a network."""
        from modelyard.models.export import export

        file = self._folder(names) / PLAIN
        if not file.is_file():
            sources = self.model.spec.columns
            examples = {each.column: [inputs.find(each.kind).example()] * 2 for each in sources}
            example = self.columns.encode(examples)
            draft = file.with_suffix(".draft")
            network = copy.deepcopy(self.network(names))  # it is changed for the export
            export(network, example.collate([0, 1]), example.ragged, draft)
            draft.rename(file)
        return file

    def state(self, names: Ways) -> dict[str, Any]:
        """What the target knows; of a smaller network settled anew, as it was after training."""
        answer, (validation, truths) = self.model.spec.target, self._validation
        target = targets.find(answer.kind)
        if not names or not isinstance(target, targets.Settles) or not truths:
            return answer.state
        outputs = of_rows(Graph(self.plain_graph(names)).outputs(validation), validation)
        state, _ = target.settle(outputs, truths, answer.state)
        return state

    def about(self, names: Ways) -> str:
        """What the last of these ways has done, in words."""
        self.plain_graph(names)
        return (self._folder(names) / ABOUT).read_text(encoding="utf-8")

    def share_files(self, names: Ways, out: Path) -> bool:
        """Put the network's files where a Model has them; whether transformers can hold it."""
        source = self._folder(names) / NETWORK
        if not source.is_dir():
            return False
        for name in files_in(source):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            share(source / name, out / name)
        return True

    def calibration(self) -> Encoded:
        """Training rows that a form of a graph may be calibrated on, evenly spaced."""
        rows = self._training.rows
        some = np.linspace(0, rows - 1, min(rows, CALIBRATION_ROWS)).astype(np.int64)
        return self._training.at(some)

    def _folder(self, names: Ways) -> Path:
        folder = self.kept / str(RungName(names))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _loaded(self, names: Ways) -> Any:
        folder = self._folder(names) / NETWORK
        if not folder.is_dir():
            return None
        return networks.load(self.model.spec.columns, folder, self._width).eval()

    def _made(self, names: Ways) -> Any:
        *before, last = names
        known = self.ways(tuple(before))
        if last not in known:
            raise SettingInvalid(_impossible(last, tuple(before), list(known)))
        way, folder = known[last], self._folder(names)
        self.events(Noted(f"making {'+'.join(names)}: {way.about}"))
        teaching = replace(self._teaching, kept=folder / "learning")
        teaching.kept.mkdir(exist_ok=True)
        found = way.make(self.network(tuple(before)), teaching)
        (folder / ABOUT).write_text(
            way.about, encoding="utf-8"
        )  # first: the network says it is made
        self._keep(found, folder)
        shutil.rmtree(teaching.kept, ignore_errors=True)
        return found

    def _keep(self, network: Any, folder: Path) -> None:
        """Write a network as a Model has it, where transformers can hold it."""
        from modelyard.models.smaller import in_hugging_face_form

        if not in_hugging_face_form(network):
            return
        draft = folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        sources, own = self.model.spec.columns, self.model.folder
        networks.save(network, sources, lambda group: group.folder(own), draft)
        draft.rename(folder / NETWORK)

    @cached_property
    def _teaching(self) -> "Teaching":
        """What students learn from: the teacher's own outputs, as its graph computes them."""
        from modelyard.models.smaller import Teaching

        graph = Graph(self.plain_graph(()))
        validation, _ = self._validation
        return Teaching(
            pieces=self._lesson,
            outputs=each_of(graph.outputs(self._lesson)),
            validation=validation,
            validation_outputs=each_of(graph.outputs(validation)),
            kind=targets.find(self.model.spec.target.kind).outputs,
            minutes=self.project.compress.minutes,
            seed=self.project.train.seed,
            events=self.events,
            kept=self.kept,
        )

    @cached_property
    def unlabelled(self) -> Unlabelled | None:
        """Rows that teach beside the training rows, where the project has such."""
        own = self.model.spec
        return unlabelled_rows(self.project, self.dataset, own, self.columns, self.events)

    @cached_property
    def _training(self) -> Encoded:
        """All training rows, and, where there are such, all candidates."""
        rows, _ = self._part("train")
        if self.model.spec.candidate is None:
            return rows
        candidates = Candidates.of(self.dataset, self.model.spec, self.columns)
        return one_after_the_other([rows, candidates.encoded])

    @cached_property
    def _lesson(self) -> Encoded:
        """All that teaches."""
        more = self.unlabelled
        return one_after_the_other([self._training, more.encoded]) if more else self._training

    @cached_property
    def _validation(self) -> tuple[Encoded, list[Any]]:
        return self._part("validation")

    def _part(self, name: str) -> tuple[Encoded, list[Any]]:
        answer: ColumnState = self.model.spec.target
        names = [*self.columns.names, answer.column]
        table = pq.read_table(self.dataset.part(name), columns=names)
        values = {each: table[each].to_pylist() for each in self.columns.names}
        return self.columns.encode(values), table[answer.column].to_pylist()

    @cached_property
    def _used(self) -> Mapping[str, NDArray[np.int64]]:
        """The tokens of the training rows, in rising order, of each tower that reads such."""
        found = {}
        for name, array in self._training.arrays.items():
            if isinstance(array, Ragged) and array.mask:
                used = np.unique(np.concatenate([array.values, [array.fill]]))
                found[name.rpartition(".")[0]] = used.astype(np.int64)
        return found


def _impossible(way: str, before: Ways, known: list[str]) -> str:
    network = f"the network after {'+'.join(before)}" if before else "this model's network"
    able = f"it can be made smaller by {', '.join(known)}" if known else "nothing makes it smaller"
    return (
        f"compress.target asks for {way!r}, and {network} cannot be made so; {able}. Name one of "
        "these, or int8, or auto."
    )
