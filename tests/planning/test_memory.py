"""Memory from a base's shape, against what was measured with SmolLM2-135M."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_bench.models.base import Base
from align_bench.models.precision import Precision
from align_bench.planning import memory
from align_bench.planning.memory import expected_memory
from align_bench.suite.load import load_suite

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
PARAMETERS = 134_515_008
SETTINGS = ["base=x", "data.train=t.jsonl", "data.val=v.jsonl"]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2), encoding="utf-8")
    return Base("smollm2", tmp_path, None, "digest")


@pytest.mark.parametrize(
    ("precision", "tokens", "training", "more"),
    [
        (Precision("fp32", "float32", "cpu"), 768, 2.09e9, ["train.max_length=320"]),  # benchmarks, 2026-11-26-cpu
        (Precision("bf16", "bfloat16", "cpu"), 768, 2.13e9, ["train.max_length=320"]),  # 2026-11-26-cpu-bf16-stock
        (Precision("nf4", "float32", "cpu"), 768, 2.02e9, ["train.max_length=320"]),  # 2026-11-26-cpu-nf4-stock
        (Precision("nf4", "bfloat16", "cuda"), 5_000, 4.62e9, []),  # 2026-11-26-gpu
        (Precision("nf4", "bfloat16", "cuda"), 20_000, 18.1e9, ["train.micro_batch_tokens=32768"]),  # reports/smollm2
    ],
)
def test_training_takes_what_was_measured(
    base: Base, precision: Precision, tokens: int, training: float, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "has_avx512", lambda: True)
    suite = load_suite("real", [*SETTINGS, *more])
    found = expected_memory(suite, base, PARAMETERS, precision, (tokens, 100))
    assert found is not None
    assert found.training == pytest.approx(training, rel=0.25)
    assert found.weights < found.training


@pytest.mark.parametrize(("known", "more"), [(True, 0.8e9), (None, 0.8e9), (False, 0.0)])
def test_what_bf16_adds_depends_on_the_processor(
    base: Base, known: bool | None, more: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "has_avx512", lambda: known)
    suite, precision = load_suite("real", SETTINGS), Precision("bf16", "bfloat16", "cpu")
    found = expected_memory(suite, base, PARAMETERS, precision, (1, 1))
    assert found is not None
    monkeypatch.setattr(memory, "_BF16_PROCESS_BYTES", 0.0)
    without = expected_memory(suite, base, PARAMETERS, precision, (1, 1))
    assert without is not None
    assert found.training - without.training == pytest.approx(more)


def test_answers_take_their_keys_and_values(base: Base) -> None:
    precision = Precision("fp32", "float32", "cpu")
    settings = [*SETTINGS, "generate.max_new_tokens=48", "generate.batch_size=64"]
    found = expected_memory(load_suite("real", settings), base, PARAMETERS, precision, (768, 50))
    assert found is not None
    assert found.answering == pytest.approx(1.95e9, rel=0.25)  # benchmarks, 2026-11-26-cpu-generation
    longer = expected_memory(
        load_suite("real", [*settings, "generate.max_new_tokens=1048"]), base, PARAMETERS, precision, (768, 50)
    )
    assert longer is not None
    assert longer.answering - found.answering == 2 * 2 * 30 * 3 * 64 * 4 * 1000 * 64


def test_a_reward_model_predicts_no_tokens(base: Base) -> None:
    suite, precision = load_suite("real", SETTINGS), Precision("fp32", "float32", "cpu")
    policy = expected_memory(suite, base, PARAMETERS, precision, (100, 100))
    reward = expected_memory(suite, base, PARAMETERS, precision, (100, 100), scores=True)
    assert policy is not None
    assert reward is not None
    assert policy.training - reward.training == 100 * 49152 * 10
    assert policy.answering == reward.answering


def test_a_base_of_unknown_shape_has_no_figure(base: Base, tmp_path: Path) -> None:
    suite, precision = load_suite("real", SETTINGS), Precision("fp32", "float32", "cpu")
    assert expected_memory(suite, Base("x", tmp_path, "x.gguf", "d"), PARAMETERS, precision, (1, 1)) is None
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert expected_memory(suite, base, PARAMETERS, precision, (1, 1)) is None


def test_a_pass_on_a_cpu_is_as_long_as_training_makes_it(base: Base) -> None:
    """768 tokens; a batch of more is cut, and only a longer row passes as a whole."""
    suite, precision = load_suite("real", [*SETTINGS, "train.max_length=320"]), Precision("fp32", "float32", "cpu")
    full, more, less = (expected_memory(suite, base, PARAMETERS, precision, (n, 100)) for n in (768, 5000, 767))
    assert full == more
    assert full is not None
    assert less is not None
    assert less.training < full.training
