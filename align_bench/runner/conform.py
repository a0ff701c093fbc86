"""Methods are held to the quick part of the conformance kit before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.errors import PluginError
from align_bench.records import CellId
from align_bench.report.alarms import failed_check
from align_bench.report.schema import MethodCheck
from align_bench.report.verdict import alarm_lines
from align_bench.runner.outcomes import FAILED_CHECKS
from align_bench.stages.train import Trained

if TYPE_CHECKING:
    from align_bench.records import Scalar
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage
    from align_bench.testing import Check

Method = tuple[str, str, tuple[tuple[str, "Scalar"], ...]]  # digest of its code, name, hyper-parameters


class Kit:
    """Checks each loss once, at the hyper-parameters that it is trained with."""

    def __init__(self, results: Results, progress: Progress) -> None:
        self._results = results
        self._progress = progress
        self._failed: dict[Method, list[Check]] = {}

    def hold(self, stage: Stage[object]) -> None:
        """Check the loss of what a stage would train; nothing of a stage that trains none.

        A flipped sign, rewards that do not follow the loss, or values that are not finite at extreme margins are logged
        and kept for the report, and training goes on: only the method's author knows whether they are meant.

        Raises:
            PluginError: what the method returns breaks the contract, so that no step could be right.
        """
        if not isinstance(stage, Trained):
            return
        failed = self._checked(stage)
        for check in failed:
            if check.name == "contract":
                raise _broken(stage.plugin.algorithm.name, check)
        if failed:
            facts = [{"check": check.name, "found": check.found, "hint": check.hint} for check in failed]
            self._results.noted[stage.address] = {FAILED_CHECKS: facts}

    def _checked(self, stage: Trained) -> list[Check]:
        from align_bench.testing.checks import quick_checks

        algorithm = stage.plugin.algorithm
        method = stage.plugin.digest, algorithm.name, tuple(sorted(stage.parameters.items()))
        if method not in self._failed:
            found = [check for check in quick_checks(algorithm, stage.parameters) if check.status == "failed"]
            self._failed[method] = found
            for check in found:
                if check.name != "contract":
                    self._say(algorithm.name, check)
        return self._failed[method]

    def _say(self, name: str, check: Check) -> None:
        failed = MethodCheck.model_validate(
            {"cell": CellId(name), "check": check.name, "found": check.found, "hint": check.hint}
        )
        for line in alarm_lines([failed_check(failed)]):
            self._progress.log(line)


def _broken(name: str, check: Check) -> PluginError:
    raised = check.found.startswith("raised ")
    what = check.found if raised else f"breaks the contract: {check.found}; expected {check.expected}"
    return PluginError(f"the loss of {name} {what}", fix=f"{check.hint}; align-bench check shows all checks")
