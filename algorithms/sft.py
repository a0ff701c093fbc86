from align_bench.api import ChosenLogps, Loss, algorithm


@algorithm(
    paper="arXiv:2203.02155",
    learning_rate=1e-4,
    learning_rate_range=(1e-5, 5e-4),
    reward="s̄",
    normalised=True,
)
def sft(logps: ChosenLogps) -> Loss:
    """Supervised Fine-Tuning on the chosen answers: the baseline that learns nothing from rejected ones.

    Equation:
        −s̄_w,  s̄ = s / |y|

    Args:
        logps: sums of response log-probabilities of the chosen answers, nats, shape [rows], and token counts.

    Returns:
        Per-example loss and the rewards s̄ (nats per token), each of shape [rows].

    Source:
        Ouyang et al. 2022, section 3.5, the first step.

        In TRL: DPOTrainer with `loss_type="sft"`; its loss is a mean over all answer tokens of a batch. Tests hold both
        equal in value and gradient, but for the weight of long answers.

        Also in LLaMA-Factory (`stage: sft`), OpenRLHF, align-anything.

    Differs from the source:
        1. Each answer weighs the same: the mean over its tokens, then over answers. A mean over all tokens of a batch,
           as in most trainers, gives long answers more weight, and the comparison here is over answers.
        2. Only the answer is learnt, not the prompt.
        3. The default learning rate suits LoRA adapters (1e-5 for full fine-tuning).
    """
    mean = logps.logps / logps.tokens
    return Loss(-mean, rewards=mean)
