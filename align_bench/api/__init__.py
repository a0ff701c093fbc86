"""What a plugin may import: the records a loss reads, the loss it returns, and the decorators that declare it."""

from align_bench.api.algorithms import Algorithm
from align_bench.api.auxiliaries import Adversary, Auxiliary, BiasExpert, LengthHead
from align_bench.api.batches import (
    AdversaryScores,
    Batch,
    BiasExpertScores,
    ChosenLogps,
    LengthHeadScores,
    MarginPairLogps,
    MarginPairScores,
    PairLogps,
    PairScores,
    ReferencedChosenLogps,
    ReferencedMarginPairLogps,
    ReferencedPairLogps,
    ReferencedUnpairedLogps,
    UnpairedLogps,
)
from align_bench.api.hyperparameters import Parameter, Range
from align_bench.api.loss import Loss
from align_bench.api.offline import OfflineAlgorithm, algorithm
from align_bench.api.online import OnlineAlgorithm, online
from align_bench.api.recipes import Answer, AnswerJob, Job, Pair, PairJob, Prompt, PromptJob, Recipe, recipe
from align_bench.api.rollouts import (
    Advantages,
    CriticAdvantages,
    CriticExperience,
    CriticRollouts,
    Experience,
    Rollouts,
    RolloutSettings,
)
from align_bench.api.selections import CandidateSettings, Selection, selection
from align_bench.errors import PluginError

__all__ = [
    "Advantages",
    "Adversary",
    "AdversaryScores",
    "Algorithm",
    "Answer",
    "AnswerJob",
    "Auxiliary",
    "Batch",
    "BiasExpert",
    "BiasExpertScores",
    "CandidateSettings",
    "ChosenLogps",
    "CriticAdvantages",
    "CriticExperience",
    "CriticRollouts",
    "Experience",
    "Job",
    "LengthHead",
    "LengthHeadScores",
    "Loss",
    "MarginPairLogps",
    "MarginPairScores",
    "OfflineAlgorithm",
    "OnlineAlgorithm",
    "Pair",
    "PairJob",
    "PairLogps",
    "PairScores",
    "Parameter",
    "PluginError",
    "Prompt",
    "PromptJob",
    "Range",
    "Recipe",
    "ReferencedChosenLogps",
    "ReferencedMarginPairLogps",
    "ReferencedPairLogps",
    "ReferencedUnpairedLogps",
    "RolloutSettings",
    "Rollouts",
    "Selection",
    "UnpairedLogps",
    "algorithm",
    "online",
    "recipe",
    "selection",
]
