"""What `align-bench plan` says of a suite before its cells: settings, rows, what would be cut, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from rich.markup import escape
from rich.table import Table

from align_bench.models.base import base_parameters
from align_bench.models.micro_batches import scoring_tokens, training_tokens
from align_bench.planning.lengths import SAMPLE_ROWS, Lengths, measure_lengths, plain_tokenizer
from align_bench.planning.limits import cut_answers, graphs_words
from align_bench.planning.memory import expected_memory
from align_bench.runner.allocator import obstacle
from align_bench.suite.layers import origin
from align_bench.suite.models import GoldJudge, LoadedJudge, TrainedJudge

if TYPE_CHECKING:
    from align_bench.models.precision import Precision
    from align_bench.planning.graph import Graph
    from align_bench.planning.inputs import Prepared
    from align_bench.runner.results import Results
    from align_bench.suite.layers import Layer
    from align_bench.suite.models import AnyJudge, DataFile, Suite, Tune

MUCH = 0.1  # of rows that are cut
CUT_BY_QUICK = (
    "data.train",
    "data.val",
    "data.test",
    "judge",
    "seeds",
    "train.epochs",
    "generate.prompts",
    "generate.samples",
    "tune",
)


def settings_table(prepared: Prepared, layers: Sequence[Layer]) -> Table:
    """What each setting comes to, and which file says it, `--set`, or nobody: then it is the default."""
    table = Table("setting", "value", "from", title=escape(f"{prepared.suite.name}: settings"))
    for key, value in _settings(prepared).items():
        found = origin(layers, key)
        said = found.name if found else "default" if layers else ""
        cut = prepared.suite.quick and key in CUT_BY_QUICK  # at most: what is less stays as it is said
        table.add_row(key, escape(value), escape(f"{said}, --quick" if cut else said))
    return table


def _settings(prepared: Prepared) -> dict[str, str]:
    suite, frozen = prepared.suite, prepared.inputs.frozen
    generate, train, lora = suite.generate, suite.train, suite.lora
    return {
        "base": suite.base,
        "precision": f"{suite.precision}: here {frozen.precision.storage}, computed in {frozen.precision.compute} "
        f"on {frozen.precision.device}",
        "lora": f"r {lora.r}, alpha {lora.alpha:g}, {lora.target_modules}",
        "data.train": _file(suite.data.train),
        "data.val": _file(suite.data.val),
        **({} if suite.data.test is None else {"data.test": _file(suite.data.test)}),
        "judge": "; ".join(map(_judge, suite.judge)) or "none",
        "seeds": ", ".join(map(str, suite.seeds)),
        "train.epochs": str(train.epochs),
        "train.batch_size": str(train.batch_size),
        "train.max_length": f"{train.max_length:,} tokens",
        "train.micro_batch_tokens": _pass_words(train.micro_batch_tokens, frozen.precision.device),
        **({"train.activation_checkpointing": "true"} if train.activation_checkpointing else {}),
        **({"train.cuda_graphs": graphs_words(frozen.precision.device)} if train.cuda_graphs else {}),
        **({} if train.processes == 1 else {"train.processes": str(train.processes)}),
        "generate.prompts": f"{generate.prompts:,}",
        "generate.max_new_tokens": f"{generate.max_new_tokens:,}",
        "generate.temperature": f"{generate.temperature:g}" + " (greedy)" * (generate.temperature == 0),
        "generate.samples": str(generate.samples),
        **({"generate.cuda_graphs": graphs_words(frozen.precision.device)} if generate.cuda_graphs else {}),
        "methods": "; ".join(_method_words(prepared, suite)),
        **({} if suite.tune is None else {"tune": _tune(suite.tune)}),
    }


def _pass_words(given: int | None, device: str) -> str:
    training, scoring = training_tokens(given, device), scoring_tokens(given, device)
    if given is not None or training == scoring:
        return f"{training:,}"
    return f"{training:,}; {scoring:,} where nothing is trained"


def _tune(tune: Tune) -> str:
    """What is searched, and by what the choice is made."""
    by = f"by {tune.choose_by} on {tune.holdout:.0%} of train"
    if tune.methods is None:
        return f"{tune.trials} trials of every method, {by}"
    listed = (
        f"{name}: {', '.join(f'{key} {one}' for key, one in values.items())}" if values else f"{name}: its ranges"
        for name, values in tune.methods.items()
    )
    return f"{'; '.join(listed)}; {by}"


def _file(file: DataFile) -> str:
    said = [", ".join(file.paths)]
    if file.rows is not None:
        said.append(f"first {file.rows:,} rows")
    if file.skip:
        said.append(f"after {file.skip:,}")
    if file.prompts is not None:
        said.append(f"{file.prompts[1] - file.prompts[0]:.0%} of the prompts")
    if file.too_long == "drop":
        said.append("rows that are too long dropped")
    return ", ".join(said)


def _judge(judge: AnyJudge) -> str:
    match judge:
        case GoldJudge():
            return judge.title
        case LoadedJudge():
            return judge.model
        case TrainedJudge(holdout=None):
            return f"{judge.title}, trained on {_file(judge.data)}"
        case TrainedJudge():
            return f"{judge.title}, trained on {judge.holdout:.0%} of train's prompts, held out of train"


def _method_words(prepared: Prepared, suite: Suite) -> Iterator[str]:
    """Each method with its learning rate, and whether that is its default."""
    for method in suite.methods:
        algorithm = prepared.registry[method.name].algorithm
        rates = [float(rate) for rate in method.grid.get("learning_rate", [])]
        default = getattr(algorithm, "learning_rate", None)
        if rates:
            yield f"{method.name} at {', '.join(f'{rate:g}' for rate in rates)}"
        else:
            yield method.name if default is None else f"{method.name} at {default:g} (its default)"


def lengths_of(prepared: Prepared, graph: Graph) -> dict[str, Lengths]:
    """A sample of each split's rows in the base's tokens."""
    frozen = prepared.inputs.frozen
    tokenizer = plain_tokenizer(frozen.base, frozen.inputs)
    most = prepared.suite.generate.max_new_tokens
    return {split: measure_lengths(table, tokenizer, most) for split, table in graph.tables.items()}


def rows_table(prepared: Prepared, graph: Graph, lengths: Mapping[str, Lengths], results: Results) -> Table:
    """The rows of each split, how long they are, and what would be cut."""
    suite = prepared.suite
    table = Table(title="rows", caption=f"lengths and shares from up to {SAMPLE_ROWS} rows of each, drawn evenly")
    table.add_column("split")
    wider = "dropped" if suite.data.train.too_long == "drop" else "cut"
    for heading in (
        "rows",
        "prompts",
        "prompt tokens (median, 95%)",
        "answer tokens (median, 95%)",
        f"{wider} at {suite.train.max_length:,} tokens",
        f"chosen answers over {suite.generate.max_new_tokens:,} tokens",
    ):
        table.add_column(heading, justify="right")
    for split, found in lengths.items():
        stored = results.facts(graph.tables[split])
        rows = cast("Mapping[str, int]", stored["size"])["rows"] if stored else found.size.rows
        table.add_row(
            split,
            f"{rows:,}",
            f"{found.size.prompts:,}",
            "{:,}, {:,}".format(*found.prompt),
            "{:,}, {:,}".format(*found.answer),
            f"{found.cut:.1%}",
            f"{found.longer:.1%}",
        )
    return table


def cuts(prepared: Prepared, lengths: Mapping[str, Lengths]) -> Iterator[str]:
    """A warning for each split of which much would be cut, and where answers are longer than any that is written."""
    suite = prepared.suite
    for split, found in lengths.items():
        if found.cut > MUCH:
            yield (
                f"{split}: {found.cut:.0%} of its rows have an answer that does not fit into train.max_length = "
                f"{suite.train.max_length:,} tokens: it is cut, or its row dropped (too_long); raise train.max_length"
            )
    if (val := lengths["val"]).longer > MUCH:
        yield (
            f"val: {val.longer:.0%} of its preferred answers are longer than generate.max_new_tokens = "
            f"{suite.generate.max_new_tokens:,}: a policy that answers like them is cut off; raise it"
        )
    if (cut := cut_answers(suite, prepared.inputs.frozen.base, val.prompts)) is not None:
        stops = "; a run stops here" if cut.too_many else ""
        yield f"{cut.message}{stops}; {cut.fix}"


def memory_words(prepared: Prepared, lengths: Mapping[str, Lengths], graph: Graph, results: Results) -> str:
    """The memory at the peak: as this suite's trainings and answers took it here, else by the base's shape."""
    suite, frozen = prepared.suite, prepared.inputs.frozen
    each = " of each process" if suite.train.processes > 1 else ""
    made = [stage.address for stage in graph.stages if stage.kind in ("adapter", "generations")]
    stored = filter(None, map(results.store.get_unverified, made))
    peaks = [artefact.cost.peak_bytes for artefact in stored if artefact.cost.peak_bytes]
    if peaks:
        return f"memory at the peak{each}: {max(peaks) / 1e9:,.1f} GB, measured here in this suite's own work"
    train = lengths["train"]
    batch = suite.train.batch_size * train.size.tokens // max(1, train.size.rows)
    tokens = (batch, lengths["val"].prompt[1])
    found = expected_memory(suite, frozen.base, base_parameters(frozen.base), frozen.precision, tokens)
    if found is None:
        return "memory at the peak: not known before a first run, since the base has no config.json that says its shape"
    return (
        f"memory at the peak{each}: about {max(found.training, found.answering) / 1e9:,.1f} GB (training "
        f"{found.training / 1e9:,.1f}, writing answers {found.answering / 1e9:,.1f}, of these the base "
        f"{found.weights / 1e9:,.1f}); not measured yet, may be off by a factor of 2"
    )


def allocator_words(precision: Precision) -> Iterator[str]:
    """What a run does with memory that is freed, where the host's is what counts."""
    if precision.device == "cpu":
        why = obstacle()
        kept = "a run keeps freed memory for the next pass, and gives it back between stages"
        yield f"allocator: glibc's; {kept}" if why is None else f"allocator: left as it is, since {why}"


def one_process_words(prepared: Prepared) -> str:
    """Behind a time: what several processes gain is not in it."""
    if prepared.suite.train.processes == 1:
        return ""
    return (
        "; trainings that were not measured count as if one process did all of it: the gain from several is not known"
    )
