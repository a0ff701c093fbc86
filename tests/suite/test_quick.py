"""What --quick leaves of a suite."""

from __future__ import annotations

from align_bench.suite.load import load_suite
from align_bench.suite.models import TrainedJudge


def test_rows_prompts_and_trials_are_cut_and_nothing_else() -> None:
    whole, quick = load_suite("assignment"), load_suite("assignment", ["quick=true"])
    assert (quick.name, quick.quick, whole.quick) == ("assignment-quick", True, False)
    assert quick.data.test is not None
    assert [file.rows for file in (quick.data.train, quick.data.val, quick.data.test)] == [320, 160, 160]
    (judge,) = quick.judge
    assert isinstance(judge, TrainedJudge)
    assert judge.data.rows == 320
    assert (quick.generate.prompts, quick.audit.pairs) == (50, 25)
    assert quick.tune is not None
    assert quick.tune.methods == {"rm": {"learning_rate": [1e-3, 1e-2], "batch_size": [16, 32]}}
    assert quick.methods == whole.methods
    changed = {"name", "quick", "data", "judge", "generate", "audit", "tune"}
    assert quick.model_dump(exclude=changed) == whole.model_dump(exclude=changed)


def test_a_suite_that_asks_for_less_keeps_what_it_asks_for() -> None:
    small = ["data.train.rows=10", "data.val.rows=20", "generate.prompts=3", "audit.pairs=0", "seeds=[4, 5]"]
    quick = load_suite("assignment", [*small, "quick=true", "tune={trials: 9}", "methods=[{dpo: {epochs: [2, 3]}}]"])
    assert (quick.data.train.rows, quick.data.val.rows, quick.generate.prompts, quick.audit.pairs) == (10, 20, 3, 0)
    assert quick.seeds == [4]
    assert quick.tune is not None
    assert quick.tune.trials == 2
    assert quick.methods[0].grid == {"epochs": [1]}
