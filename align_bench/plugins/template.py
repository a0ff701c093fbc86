"""What `align-bench new` writes: a plugin that is whole but for its loss."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from pathlib import Path

from align_bench.errors import PluginError, nearest
from align_bench.plugins.registry import Registry
from align_bench.suite.names import RESERVED


@dataclass(frozen=True, slots=True)
class _Kind:
    """The words of a template that depend on the kind of data.

    Attributes:
        record: the class of `api` that the loss reads.
        batch: what its argument is called.
        read: what stands in it.
        declared: what the declaration says beside the reward.
        reward: the rewards' definition.
        beta: what beta is, with its unit.
        fields: the rewards of the returned Loss.
    """

    record: str
    batch: str
    read: str
    declared: str
    reward: str
    beta: str
    fields: str


_PAIR_FIELDS = "chosen_rewards=…, rejected_rewards=…"
_KINDS = {
    "pairs": _Kind(
        record="ReferencedPairLogps",
        batch="logps",
        read="sums of response log-probabilities, nats, shape [rows], with their reference.",
        declared='paper="arXiv:0000.00000", learning_rate=5e-5',
        reward="β·ρ",
        beta="strength of the pull towards the reference, per nat.",
        fields=_PAIR_FIELDS,
    ),
    "chosen": _Kind(
        record="ChosenLogps",
        batch="logps",
        read="sums of response log-probabilities of the chosen answers, nats, shape [rows], and token counts.",
        declared='paper="arXiv:0000.00000", learning_rate=1e-4',
        reward="β·s̄",
        beta="scale of the reward, no unit.",
        fields="rewards=…",
    ),
    "unpaired": _Kind(
        record="ReferencedUnpairedLogps",
        batch="logps",
        read="sums of response log-probabilities, nats, shape [rows], with reference and mismatched ones.",
        declared='paper="arXiv:0000.00000", learning_rate=5e-5',
        reward="β·ρ",
        beta="strength of the pull towards the reference, per nat.",
        fields="rewards=…",
    ),
    "scores": _Kind(
        record="PairScores",
        batch="scores",
        read="scalar-head scores, no unit, shape [rows].",
        declared='paper="arXiv:0000.00000", learning_rate=1e-4',
        reward="r",
        beta="scale of the score difference, no unit.",
        fields=_PAIR_FIELDS,
    ),
}
_TEMPLATE = '''\
from typing import Annotated

from annotated_types import Gt

from align_bench.api import {imports}, algorithm


@algorithm({kind.declared}, reward="{kind.reward}")
def {name}({kind.batch}: {kind.record}, *, beta: Annotated[float, Gt(0)] = 0.1) -> Loss:
    """{name}: what it is, in one line.

    Equation:
        the loss of one row

    Args:
        {kind.batch}: {kind.read}
        beta: {kind.beta}

    Returns:
        Per-example loss and the rewards, each of shape [rows].

    Source:
        authors, year, equation.

    Differs from the source:
        1. What, and why.
    """
    # Return one value for each row: Loss(values, {kind.fields})
    raise NotImplementedError("put the loss of {name} in place of this line")
'''


def write_template(name: str, data: str, folder: Path, *, taken: Registry) -> Path:
    """Write the template of a method.

    Args:
        name: the method's name and the file's stem.
        data: the kind of data that its loss reads.
        folder: where to write; made when it does not exist.
        taken: the methods whose names cannot be used again.

    Returns:
        The file.

    Raises:
        PluginError: when the name or the kind cannot be used, or the file exists.
    """
    if data not in _KINDS:
        raise PluginError(f"--data {data}: no such kind. {nearest(data, _KINDS, what='data kind')}")
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower() or name.startswith("_"):
        raise PluginError(
            f"{name!r} cannot name a method", fix="use lower-case letters, digits and _, such as my_dpo, a letter first"
        )
    if name in taken.plugins or RESERVED.fullmatch(name):
        where = taken.plugins[name].path if name in taken.plugins else "reserved"
        raise PluginError(f"the name {name!r} is taken: {where}", fix="choose another name")
    kind = _KINDS[data]
    text = _TEMPLATE.format(name=name, kind=kind, imports=", ".join(sorted(["Loss", kind.record])))
    path = folder / f"{name}.py"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise PluginError(f"{path} exists already", fix="choose another name, or remove the file") from error
    return path
