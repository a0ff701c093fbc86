"""What is said of problems that were found in rows."""

LONGER = 0.6  # share of pairs whose longer answer is preferred, or whose shorter one is

NAMES = {
    "duplicates": "duplicate pairs",
    "near_duplicates": "near-duplicate pairs",
    "contradictions": "contradictory pairs",
    "prompts": "repeated prompts",
    "near_prompts": "nearly repeated prompts",
}
# Of repeated prompts there is nothing to say: several pairs of a prompt are what many sets are made of.
ADVICE = {
    "duplicates": "a copy counts once more in training and in means: drop all but the first",
    "near_duplicates": "look at some; where they say the same, drop all but the first",
    "contradictions": "nothing can learn both labels: drop these, or label them again",
    "shared": "a prompt in both makes results look better than they are: keep each in one of the two",
}
