"""Keys that cannot lie: of each module of the package, which artefacts a change to its code computes again.

The table says so by reason, not by what the imports happen to be: a module that can change an artefact must change its
key, and one that cannot should not. What a stage's key says of its data and of its weights, of settings and of
libraries is in `test_keys`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest

from align_bench import sources
from align_bench.sources import PACKAGE, PAGE_SUFFIXES, closure, module_digest
from align_bench.stages.stage import Stage

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# What is made, each with the module whose import closure is the code that makes it. `rows` and `planted` stand in the
# fingerprint of data, on which all else rests.
MADE_BY = {
    "rows": "align_bench.data.preferences",
    "planted": "align_bench.data.planted",
    **{
        made: f"align_bench.stages.{made}"
        for made in (
            "tokens",
            "holdout",
            "reference",
            "mismatched",
            "prefixes",
            "train",
            "train_online",
            "train_recipe",
            "validate_policy",
            "validate_reward",
            "validate_judge",
            "generate",
            "select",
            "drift",
            "judge",
            "proxy",
            "audit",
            "overlap",
            "trials",
            "given_adapter",
        )
    },
    "report": "align_bench.runner.report",
}

NOTHING: frozenset[str] = frozenset()
REPORT = frozenset({"report"})


def _made(names: str) -> frozenset[str]:
    """Artefacts, and the report, which is never finished when code that made a part of it has changed."""
    return frozenset(names.split()) | REPORT


COLUMNS = _made("reference mismatched prefixes validate_policy validate_reward validate_judge")
BASES = _made("reference mismatched prefixes validate_policy validate_reward")  # table_logps, table_scores
ADAPTERS = _made("train train_online train_recipe")
REWARDED = _made("train_online train_recipe select")
TEXTS = _made("judge audit validate_judge")  # what a judge that is loaded as it is reads
# A base with or without an adapter; a loaded judge may be an exported one.
ADAPTED = BASES | ADAPTERS | REWARDED | TEXTS | _made("generate drift proxy")
COMPUTED = ADAPTED  # what any model computes
SCORED = REWARDED | _made("judge proxy audit")  # by a reward model that was trained here
TABLES = _made("tokens holdout")
COUNTED = TABLES | COLUMNS | _made("audit")  # whose cost is counted in a table's tokens
STAGES = frozenset(MADE_BY) - {"rows", "planted"}

# Module, or all modules below one that ends with a dot → what a change to it changes; a module's own entry counts.
TABLE: dict[str, frozenset[str]] = {
    # Outside of every closure.
    "errors": NOTHING,  # how an error is worded
    "__main__": NOTHING,  # starts the command line
    "cli.": NOTHING,  # shows
    "notebook": NOTHING,  # the same, from Python
    "sources": NOTHING,  # names artefacts, and by other names when it hashes otherwise
    "store.": NOTHING,  # keeps artefacts, with checksums
    # No artefact is made by these.
    "testing.": NOTHING,
    "data.summary": REPORT,  # `align-bench data`, and the report's section on data
    "data.advice": REPORT,
    "data.doctor": REPORT,
    "data.near": REPORT,
    "data.scripts": REPORT,
    "data.answers": NOTHING,  # `align-bench score`
    "data.shapes_page": NOTHING,  # docs/data.md
    "data.check_rows": REPORT,  # what alarms know of rows
    "runner.score_file": NOTHING,  # `align-bench score`
    "runner.stored_judge": NOTHING,
    "report.compare": NOTHING,  # the other commands' own pages and tables: written anew each time, never finished
    "report.formats": NOTHING,
    "report.history": NOTHING,
    "report.render.screen": NOTHING,
    "report.render.terminal": NOTHING,
    "report.tables.pairwise": NOTHING,
    # What these come to is itself in the keys: digests, settings, versions.
    "data.fingerprint": NOTHING,
    "judge.find": NOTHING,
    "models.base": NOTHING,
    "export.": NOTHING,  # takes weights out of the store
    "models.precision": NOTHING,  # what computes is written in the key; what its name means to torch is `compute`
    "plugins.": NOTHING,  # of a plugin, the files that are executed
    "suite.layers": NOTHING,
    "suite.given": NOTHING,  # what is read from a suite is itself in the keys
    "suite.strict": REPORT,
    "suite.variables": NOTHING,
    "suite.limits": NOTHING,
    "suite.load": NOTHING,
    "planning.inputs": NOTHING,
    "planning.given_starts": NOTHING,  # finds what methods start from, and refuses what does not fit
    "planning.strict": NOTHING,  # refuses
    # Order and progress; no stage's result may depend on them.
    "planning.estimate": NOTHING,
    "planning.memory": NOTHING,
    "planning.hardware": NOTHING,  # forecasts for devices that need not be here
    "planning.schedule": NOTHING,
    "planning.fit": NOTHING,
    "planning.forecast": NOTHING,
    "planning.lengths": NOTHING,
    "planning.limits": NOTHING,  # stops a run before it begins
    "planning.sharing": NOTHING,  # says what a training stage knows
    "planning.known": NOTHING,
    "runner.conform": NOTHING,  # stops methods, and notes facts beside what they make
    "runner.watch": NOTHING,  # says what the report says again
    "runner.desk": NOTHING,  # hands out what was loaded by the code of `models`
    "runner.results": NOTHING,
    "runner.libraries": NOTHING,  # imports earlier what stages import themselves
    "runner.run": NOTHING,
    "runner.walk": NOTHING,
    "runner.make": NOTHING,
    "runner.executor": NOTHING,
    "runner.execution": NOTHING,  # where and at what time a stage is made; threads are recorded with its cost
    "runner.worker": NOTHING,
    "runner.crew": NOTHING,
    "runner.processes": NOTHING,
    "runner.helpers": NOTHING,  # how many share a training is in its key
    "runner.devices": NOTHING,
    "runner.on_ray": NOTHING,
    "runner.verify": NOTHING,  # changes nothing
    "runner.progress": NOTHING,
    "runner.tracking": NOTHING,  # shows steps and reports elsewhere
    "runner.tracker_kinds": NOTHING,
    "runner.json_log": NOTHING,
    "stages.rows": NOTHING,  # one call of the reader, which is in the fingerprint
    # The reader of rows is in the fingerprint of what it reads, and so in all that rests on these.
    "data.preferences": frozenset({"rows"}),
    "data.fields": frozenset({"rows"}),
    "data.choices": frozenset({"rows"}),
    "data.known_sets": frozenset({"rows"}),
    "data.layout": frozenset({"rows"}),
    "data.shapes": frozenset({"rows"}),
    "data.spilled": frozenset({"rows"}),
    "data.written": frozenset({"rows"}),
    "data.tables": frozenset({"rows"}),
    "data.files": frozenset({"rows"}),
    "data.planted": frozenset({"rows", "planted"}) | REWARDED,  # gold reads answers by its grammar
    # What every stage stands on.
    "": STAGES | {"rows", "planted"},  # the package's own __init__, which runs before all
    "stages": STAGES,
    "stages.stage": STAGES,
    "records": STAGES - {"overlap", "given_adapter"} | {"rows"},
    # Each stage's own file, by the kinds that load it.
    "stages.tokens": COUNTED,
    "stages.holdout": _made("holdout"),
    "stages.reference": _made("reference mismatched prefixes"),  # the same, but for what is measured
    "stages.mismatched": _made("mismatched"),
    "stages.prefixes": _made("prefixes"),
    "stages.train": ADAPTERS,
    "stages.train_online": _made("train_online"),
    "stages.train_recipe": _made("train_recipe"),
    "stages.validate_policy": _made("validate_policy"),
    "stages.validate_reward": _made("validate_reward"),
    "stages.validate_judge": _made("validate_judge"),
    "stages.generate": _made("generate"),
    "stages.select": _made("select"),
    "stages.drift": _made("drift"),
    "stages.judge": _made("judge"),
    "stages.proxy": _made("proxy"),
    "stages.audit": _made("audit"),
    "stages.overlap": _made("overlap"),
    "stages.trials": _made("trials"),
    "stages.given_adapter": frozenset({"given_adapter"}),  # no page shows it
    # What stages share.
    "stages.columns": COLUMNS | ADAPTERS,  # trainings read the base's columns
    "stages.answers": _made("generate select drift judge proxy"),
    "stages.scores": _made("judge proxy"),
    "stages.rewards": REWARDED,
    "stages.models": ADAPTED - {"validate_judge"},
    "stages.classifier": TEXTS,
    # Rows as tokens.
    "data": TABLES | COLUMNS | ADAPTERS | SCORED | {"rows", "planted"},
    "data.chat": TABLES | COLUMNS | REWARDED | SCORED,  # writes tables, reads them, and writes texts for reward models
    "data.rendering": TABLES | COLUMNS | REWARDED | SCORED,
    "data.dropped": TABLES | COLUMNS | REWARDED | SCORED,
    "data.token_rows": TABLES | COLUMNS | REWARDED | SCORED | ADAPTERS,
    "data.counts": REPORT,  # said once rows are read, and in the report
    "data.holdout": _made("holdout"),
    "data.batches": BASES | ADAPTERS,
    # Models.
    "models": TABLES | COMPUTED,
    "models.tokenizer": TABLES | COMPUTED,
    "models.quiet": TABLES | COMPUTED,
    "models.load": ADAPTED,
    "models.lora": ADAPTED,
    "models.decoder": ADAPTED,
    "models.compute": COMPUTED,
    "models.flops": COMPUTED,
    "models.layout": COMPUTED,
    "models.packed_attention": COMPUTED,
    "models.cuda_graphs": COMPUTED,
    "models.flat_weights": COMPUTED,
    "models.transfer": COMPUTED,
    "models.micro_batches": COMPUTED,
    "models.out_of_memory": ADAPTERS | _made("select"),
    "models.unfused": COMPUTED,
    "models.shared_prefixes": COMPUTED,
    "models.head": COMPUTED - {"generate"} | REPORT,
    "models.logprobs": COMPUTED - {"generate"} | REPORT,
    "models.kv_cache": _made("generate train_online"),
    "models.decode_steps": _made("generate train_online"),
    "models.generate": _made("generate train_online"),
    "models.positions": BASES | ADAPTERS | TEXTS | _made("generate"),  # where answers and texts end
    "models.adapters": TEXTS,
    "models.start": ADAPTERS,
    "models.exported": ADAPTERS | TEXTS,  # the note of a trained adapter
    "models.headers": TEXTS,
    "models.weights": TEXTS,  # shapes of a loaded judge, and its digest among its facts
    "models.merge": TEXTS,  # what a base's comes to is in its digest
    "models.peak": REPORT,
    # Training.
    "api": ADAPTERS | _made("validate_policy"),  # records that losses read
    "api.": ADAPTERS | _made("validate_policy"),
    "train": ADAPTERS | _made("select"),
    "train.plugin_code": ADAPTERS | _made("select"),  # what a selection's choice runs in, too
    "train.job": ADAPTERS,
    "train.loop": ADAPTERS,
    "train.checkpoints": ADAPTERS,
    "train.steps": ADAPTERS,
    "models.activation_checkpointing": ADAPTERS,
    "train.feeds": ADAPTERS,
    "train.group": ADAPTERS,
    "train.whole_batch": ADAPTERS,
    "train.moving_reference": ADAPTERS,
    "train.auxiliary": ADAPTERS,
    "train.online": _made("train_online"),
    "train.recipe": _made("train_recipe"),
    # Measuring.
    "evaluate": BASES | _made("drift"),
    "evaluate.preference": BASES,
    "evaluate.rewards": _made("validate_policy"),  # the method's own rewards, by its loss
    "evaluate.drift": _made("drift"),
    # Judging.
    "judge": SCORED | TEXTS | _made("overlap"),
    "judge.reward_model": SCORED | TEXTS,  # an exported one is a loaded judge
    "judge.loaded": TEXTS,
    "judge.gold": REWARDED,
    "judge.audit": _made("audit"),
    "judge.edits": _made("audit"),
    "judge.overlap": _made("overlap"),
    "judge.ensemble": REPORT,  # members are scored alone
    # Numbers. The audit's versions are named where they are compared, and its filler is in the script of the answer.
    "metrics.": REPORT,
    "metrics": _made("audit trials"),
    "metrics.counterfactual": _made("audit"),
    "metrics.scripts": _made("audit"),
    "metrics.bold": _made("audit"),
    "metrics.mean": _made("audit trials"),
    "metrics.finite": _made("audit trials"),
    "metrics.accuracy": _made("audit trials"),
    "metrics.clusters": _made("audit trials"),
    "stats.": REPORT,
    # The report: its numbers, pages and files, and what its cells are called and show.
    "report.": REPORT,
    "planning": REPORT,
    "planning.": REPORT,
    "runner": REPORT,
    "runner.checked": REPORT,
    "runner.allocator": REPORT,  # with what meters a stage
    "runner.costs": REPORT,
    "runner.environment": REPORT,
    "runner.outcomes": REPORT,
    "runner.report": REPORT,
    "runner.rows": REPORT,
    "runner.tuning": REPORT,
    "suite": REPORT,
    "suite.models": REPORT,  # values are in the keys; what judges are called is not
    "suite.names": REPORT,
    "suite.quick": NOTHING,  # what it cuts is in the settings
}


BUILTIN = "_builtin"


def modules() -> list[str]:
    """Every module of the package, without its name. Methods that an installed one brings are plugins, not modules."""
    files = [path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    files = [file for file in files if file.parts[0] != BUILTIN]
    return [".".join(file.parts[:-1] if file.name == "__init__" else file.parts) for file in files]


def expected(module: str) -> frozenset[str]:
    """What the table says."""
    if module in TABLE:
        return TABLE[module]
    above = f"{module.partition('.')[0]}."
    assert above in TABLE, f"{module} is not in the table: which artefacts can it change?"
    return TABLE[above]


class Package:
    """A copy of the package's code, to be changed file by file.

    What stays as it is, is looked up once: hundreds of changes, each with the digest of all that is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sources: dict[Path, Any] = {}
        self._closures: dict[str, frozenset[str]] = {}
        self._files: dict[str, Path | None] = {}
        self._pages: dict[Path, list[Path]] = {}
        self._before = self.digests()

    def digests(self) -> dict[str, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sources, "_source", self._source)
            patch.setattr(sources, "closure", self._closure)
            patch.setattr(sources, "_module_file", self._file)
            patch.setattr(sources, "_page_files", self._page_files)
            return {made: module_digest(module, package=self.folder) for made, module in MADE_BY.items()}

    def changed_by(self, file: Path, content: bytes) -> frozenset[str]:
        """What is made otherwise while a file holds something else."""
        path, own = self.folder / file, (PACKAGE / file).read_bytes()
        assert content != own
        moved = file.suffix == ".py" and _imports(own) != _imports(content)
        closures = {} if moved else self._closures
        kept, self._closures = self._closures, closures
        self._sources.pop(path, None)
        path.write_bytes(content)
        try:
            return frozenset(made for made, digest in self.digests().items() if digest != self._before[made])
        finally:
            path.write_bytes(own)
            self._sources.pop(path, None)
            self._closures = kept

    def _source(self, path: Path) -> Any:
        if path not in self._sources:
            self._sources[path] = READ(path)
        return self._sources[path]

    def _closure(self, module: str, *, package: Path) -> frozenset[str]:
        if module not in self._closures:
            self._closures[module] = CLOSURE(module, package=package)
        return self._closures[module]

    def _file(self, module: str, package: Path) -> Path | None:
        if module not in self._files:
            self._files[module] = MODULE_FILE(module, package)
        return self._files[module]

    def _page_files(self, folder: Path) -> list[Path]:
        """Which they are; what they hold is read anew."""
        if folder not in self._pages:
            self._pages[folder] = [*PAGES(folder)]
        return self._pages[folder]


READ, CLOSURE, MODULE_FILE, PAGES = sources._source, sources.closure, sources._module_file, sources._page_files


def _imports(content: bytes) -> Any:
    return sources._parsed(content).imports


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("copy") / "align_bench"
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", *PAGE_SUFFIXES):
            target = folder / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return Package(folder)


def file_of(module: str) -> Path:
    """A module's file, below the package."""
    place = Path(*module.split(".")) if module else Path()
    inside = place / "__init__.py"
    return inside if (PACKAGE / inside).is_file() else place.with_suffix(".py")


def with_code(module: str) -> bytes:
    return (PACKAGE / file_of(module)).read_bytes() + b"\n_changed = 1\n"


def replaced(module: str, old: str, new: str) -> bytes:
    text = (PACKAGE / file_of(module)).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{module} holds {old!r} {text.count(old)} times"
    return text.replace(old, new).encode()


def test_the_copy_is_the_package(package: Package) -> None:
    assert package.digests() == {made: module_digest(module) for made, module in MADE_BY.items()}


def test_every_stage_and_every_module_is_in_the_table() -> None:
    made = {f"align_bench.stages.{name}" for name in kinds()}
    assert made == {module for module in MADE_BY.values() if module.startswith("align_bench.stages.")}
    found = modules()
    assert len(found) > 150
    for entry in TABLE:
        assert entry.endswith(".") or entry in found, f"{entry} is no module any more"
    for module in found:
        expected(module)


def kinds() -> set[str]:
    """The modules of `stages` that define something that can be made."""
    found = {
        path.stem: importlib.import_module(f"align_bench.stages.{path.stem}")
        for path in (PACKAGE / "stages").glob("[a-z]*.py")
    }
    return {
        name
        for name, module in found.items()
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Stage)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("module", modules())
def test_changed_code_makes_what_it_can_change_anew(package: Package, module: str) -> None:
    assert package.changed_by(file_of(module), with_code(module)) == expected(module)


@pytest.mark.parametrize("module", modules())
def test_changed_words_make_nothing_anew(package: Package, module: str) -> None:
    own = (PACKAGE / file_of(module)).read_bytes()
    assert package.changed_by(file_of(module), with_other_words(own)) == NOTHING


def with_other_words(source: bytes) -> bytes:
    """The same code under other docstrings, and with a comment."""
    lines = source.splitlines(keepends=True)
    documented = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    docstrings = [node.body[0] for node in documented if ast.get_docstring(node) is not None]
    for one in sorted(docstrings, key=lambda one: -one.lineno):
        first, last = one.lineno - 1, (one.end_lineno or one.lineno) - 1
        before, after = lines[first][: one.col_offset], lines[last][one.end_col_offset :]
        lines[first : last + 1] = [before + b'"""Other words."""' + after]
    assert docstrings or not source.strip()
    return b"".join(lines) + b"# a remark\n"


def test_a_record_s_own_formula_makes_adapters_anew(package: Package) -> None:
    changed = replaced(
        "api.batches", "return self.chosen / self.chosen_tokens", "return self.chosen / (1 + self.chosen_tokens)"
    )
    found = package.changed_by(Path("api/batches.py"), changed)
    assert {"train", "train_online", "train_recipe", "validate_policy"} <= found
    assert "reference" not in found


def test_a_docstring_of_models_makes_nothing_anew(package: Package) -> None:
    changed = replaced("models.load", "Load a base model (hub id", "Read a base model (hub id")
    assert package.changed_by(Path("models/load.py"), changed) == NOTHING


@pytest.mark.parametrize(
    "file", sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.suffix in PAGE_SUFFIXES), ids=str
)
def test_a_page_file_makes_the_report_anew_and_nothing_else(package: Package, file: Path) -> None:
    assert package.changed_by(file, (PACKAGE / file).read_bytes() + b"\nchanged\n") == REPORT


def test_what_only_type_checkers_read_makes_nothing_anew(package: Package) -> None:
    changed = replaced(
        "stages.drift",
        "if TYPE_CHECKING:\n",
        "if TYPE_CHECKING:\n    from align_bench.models.peak import rough_flops\n",
    )
    assert package.changed_by(Path("stages/drift.py"), changed) == NOTHING


@pytest.mark.parametrize("outside", ["align_bench.errors", "align_bench.sources", "align_bench.store"])
def test_an_exception_is_needed(package: Package, outside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry of OUTSIDE takes something out of a closure that would be in it."""
    assert outside in sources.OUTSIDE
    monkeypatch.setattr(sources, "OUTSIDE", tuple(one for one in sources.OUTSIDE if one != outside))
    closures = [closure(module, package=package.folder) for module in MADE_BY.values()]
    assert any(f"{module}.".startswith(f"{outside}.") for found in closures for module in found)
