"""A suite cut down to a try-out, as `--quick` does: everything runs, and no number means anything."""

from __future__ import annotations

import math
from typing import TypeVar

from align_bench.suite.models import DataFile, Method, Suite, TrainedJudge, Tune
from align_bench.suite.names import TRIED_OUT

TRAIN_ROWS, MEASURED_ROWS = 320, 160
PROMPTS, AUDITED_PAIRS, TRIALS = 50, 25, 2
T = TypeVar("T")


def cut(suite: Suite) -> Suite:
    """The suite with fewer rows, prompts and trials, under a name of its own.

    At most 320 rows of train and of each judge, 160 of val and of test, 50 prompts and one answer to each, 25 audited
    pairs; the first seed alone, one epoch; two trials a method, and of listed values the first and the last. Methods
    and what is measured stay. A suite that asks for less keeps what it asks for.

    Args:
        suite: the whole one.

    Returns:
        A suite whose name, and so its report's folder, ends in `-quick`.
    """
    data, generate, audit = suite.data, suite.generate, suite.audit
    test = None if data.test is None else _first(data.test, MEASURED_ROWS)
    judges = tuple(
        judge.model_copy(update={"data": _first(judge.data, TRAIN_ROWS)}) if isinstance(judge, TrainedJudge) else judge
        for judge in suite.judge
    )
    return suite.model_copy(
        update={
            "name": f"{suite.name}{TRIED_OUT}",
            "quick": True,
            "data": data.model_copy(
                update={
                    "train": _first(data.train, TRAIN_ROWS),
                    "val": _first(data.val, MEASURED_ROWS),
                    "test": test,
                }
            ),
            "judge": judges,
            "seeds": suite.seeds[:1],
            "train": suite.train.model_copy(update={"epochs": 1}),
            "generate": generate.model_copy(update={"prompts": min(generate.prompts, PROMPTS), "samples": 1}),
            "audit": audit.model_copy(update={"pairs": min(audit.pairs, AUDITED_PAIRS)}),
            "methods": [_one_epoch(method) for method in suite.methods],
            "tune": None if suite.tune is None else _two_trials(suite.tune),
        }
    )


def _first(file: DataFile, rows: int) -> DataFile:
    first, last = file.prompts or (0.0, 1.0)
    rows = math.ceil(rows / (last - first))  # they are counted before a part of the prompts is taken
    return file.model_copy(update={"rows": rows if file.rows is None else min(file.rows, rows)})


def _one_epoch(method: Method) -> Method:
    return method.model_copy(update={"grid": method.grid | ({"epochs": [1]} if "epochs" in method.grid else {})})


def _two_trials(tune: Tune) -> Tune:
    methods = tune.methods and {
        name: values and {parameter: _ends(listed) for parameter, listed in values.items()}
        for name, values in tune.methods.items()
    }
    return tune.model_copy(update={"trials": min(tune.trials, TRIALS), "methods": methods})


def _ends(listed: list[T]) -> list[T]:
    return [listed[0], *listed[-1:]] if len(listed) > 1 else listed
