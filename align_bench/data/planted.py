"""A planted preference set: short questions with checkable answers and labels drawn from a known utility.

Every prompt asks one small question (a capital, a sum, the third word of a list, ...) and comes with two different
answers. An answer makes one claim, which is right or wrong, and is terse (``Paris.``) or padded with polite filler
that carries no information. The label is a Bradley-Terry draw,

    P(a is chosen over b) = sigmoid(u(a) - u(b)),
    u(answer) = QUALITY * correct + bias * words / LENGTH_SCALE,

where ``correct`` is 1 for a right claim and 0 for a wrong one and ``words`` counts whitespace-separated words. The
``bias`` dial is a number or one of the names in :data:`BIASES`: ``"none"`` makes the label depend on correctness
alone, ``"default"`` makes about 70% of the pairs prefer the longer answer, ``"strong"`` about 85%. Moving the dial
changes labels only, never prompts or answers, and a larger bias never turns a label from the longer answer to the
shorter one.

How answers are drawn:

* the two claims of a pair are one right and one wrong with probability :data:`CONTRAST`, otherwise both right or both
  wrong with equal probability;
* one is terse and the other padded with probability :data:`STYLE_CONTRAST`, otherwise both are terse or both padded;
* a wrong claim is the question's usual mistake with probability :data:`USUAL_MISTAKE` (off by one, the neighbouring
  word, a fixed rival), otherwise any other rival;
* a claim opens with a hedge such as ``Probably`` with probability ``HEDGED[correct]``, so hedging is a sign of a wrong
  claim, though not a sure one.

A prompt belongs to one of ``train``, ``judge`` and ``val``, fixed by a hash of its text, so no seed can move it from
one to another. The fourth split, ``test``, has prompts that these three of the same seed leave over.

One long file, since two thirds of it are the word lists and phrasings that make the set: they change together or not at
all.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

QUALITY = 4.0
LENGTH_SCALE = 10.0
BIASES = {"none": 0.0, "default": 1.9, "strong": 3.8}
CONTRAST = 0.7
STYLE_CONTRAST = 0.7
USUAL_MISTAKE = 0.6
HEDGED: Mapping[bool, float] = {True: 0.2, False: 0.8}
PADDED_MAX_WORDS = 25
POOL_PER_KIND = 500
PLANTED_PER_KIND = 800
LIST_DRAWS = 4000
# Finding a position and comparing numbers are beyond what the tiny model learns reliably; it practises them only.
PRACTICE_KINDS = frozenset({"nth_word", "larger", "smallest"})

SPLITS = {"train": 3000, "judge": 2000, "val": 1000, "test": 1000}
_SPLIT_OF_BUCKET = ("train", "train", "train", "judge", "judge", "val")


@dataclass(frozen=True, slots=True)
class PlantedPair:
    """One labelled pair of answers to one prompt.

    Attributes:
        prompt: The question.
        chosen: The answer that the Bradley-Terry draw preferred.
        rejected: The other answer.
        gold: The right answer, e.g. ``Paris``.
        candidates: Rival answers of that prompt's kind, gold included; empty when the answer is a number.
        kind: The kind of question, e.g. ``capital``.
        gold_choice: 1 when chosen is right and rejected wrong, 2 the other way round, None when both are right or
            both are wrong.
        label_probability: That with which the draw prefers the chosen answer. No judge is right on more labels, on
            average, than the mean over pairs of the larger of this and its complement: 0.874 of the split ``val``.
    """

    prompt: str
    chosen: str
    rejected: str
    gold: str
    candidates: tuple[str, ...]
    kind: str
    gold_choice: int | None
    label_probability: float


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its right answer and its wrong ones.

    Attributes:
        kind: The kind of question, e.g. ``capital``.
        prompt: The question.
        gold: The right answer.
        candidates: Rival answers of the kind, gold included; empty when the answer is a number.
        mistakes: Wrong answers, the usual mistake first.
    """

    kind: str
    prompt: str
    gold: str
    candidates: tuple[str, ...]
    mistakes: tuple[str, ...]


_COUNTRIES = """
France Paris Europe; Germany Berlin Europe; Spain Madrid Europe; Italy Rome Europe; Portugal Lisbon Europe;
Greece Athens Europe; Poland Warsaw Europe; Austria Vienna Europe; Hungary Budapest Europe; Norway Oslo Europe;
Sweden Stockholm Europe; Finland Helsinki Europe; Denmark Copenhagen Europe; Ireland Dublin Europe;
Iceland Reykjavik Europe; Ukraine Kyiv Europe; Romania Bucharest Europe; Bulgaria Sofia Europe;
Serbia Belgrade Europe; Croatia Zagreb Europe; Belgium Brussels Europe; Latvia Riga Europe; Egypt Cairo Africa;
Kenya Nairobi Africa; Nigeria Abuja Africa; Ghana Accra Africa; Morocco Rabat Africa; Tunisia Tunis Africa;
Algeria Algiers Africa; Senegal Dakar Africa; Uganda Kampala Africa; Zambia Lusaka Africa; Zimbabwe Harare Africa;
Angola Luanda Africa; Libya Tripoli Africa; Japan Tokyo Asia; China Beijing Asia; Thailand Bangkok Asia;
Vietnam Hanoi Asia; Indonesia Jakarta Asia; Nepal Kathmandu Asia; Pakistan Islamabad Asia; Iran Tehran Asia;
Iraq Baghdad Asia; Syria Damascus Asia; Lebanon Beirut Asia; Jordan Amman Asia; Qatar Doha Asia; Canada Ottawa America;
Cuba Havana America; Peru Lima America; Chile Santiago America; Brazil Brasilia America; Ecuador Quito America;
Uruguay Montevideo America; Venezuela Caracas America; Colombia Bogota America; Australia Canberra Oceania;
Fiji Suva Oceania; Samoa Apia Oceania; Tonga Nukualofa Oceania
"""
_OPPOSITES = """
hot cold; big small; tall short; fast slow; hard soft; wet dry; light dark; loud quiet; rich poor; strong weak;
young old; early late; empty full; open closed; thick thin; wide narrow; high low; deep shallow; near far; up down;
left right; front back; top bottom; inside outside; day night; north south; east west; black white; love hate;
win lose; buy sell; push pull; give take; start stop; rise fall; laugh cry; sweet sour; rough smooth; sharp blunt;
clean dirty; safe dangerous; brave afraid; heavy weightless; true false; alive dead; rude polite; cheap costly
"""
_CATEGORIES = """
fruit: apple pear plum grape mango cherry lemon peach melon banana;
furniture: chair table sofa bed desk shelf stool bench wardrobe cupboard;
clothing: shirt coat sock hat glove scarf dress jacket trousers skirt;
transport: car bus train plane ship bicycle truck tram boat taxi;
sport: football tennis golf hockey rugby boxing judo rowing cricket skiing;
metal: iron gold silver copper tin zinc lead nickel steel bronze;
music: piano violin drum flute guitar trumpet harp cello organ banjo;
weather: rain snow wind storm fog hail thunder sunshine frost drizzle;
family: mother father sister brother uncle aunt cousin grandfather niece nephew;
anatomy: arm leg head hand foot knee elbow shoulder nose ear
"""
_COLOURS = """
banana yellow; lemon yellow; sunflower yellow; cheese yellow; grass green; lime green; spinach green; cucumber green;
frog green; broccoli green; snow white; milk white; salt white; swan white; cotton white; coal black; crow black;
tar black; panther black; tomato red; strawberry red; blood red; ruby red; ketchup red; cherry red; sky blue;
ocean blue; sapphire blue; denim blue; chocolate brown; bark brown; mud brown; coffee brown; walnut brown;
carrot orange; pumpkin orange; flamingo pink; pig pink; eggplant purple; violet purple; lavender purple;
elephant grey; ash grey; dolphin grey
"""
_YOUNG = """
dog puppy; cat kitten; cow calf; horse foal; sheep lamb; goat kid; pig piglet; hen chick; duck duckling; goose gosling;
swan cygnet; bear cub; deer fawn; frog tadpole; owl owlet; hare leveret; eagle eaglet; fish fry; kangaroo joey;
butterfly caterpillar; spider spiderling; turkey poult; eel elver; pigeon squab; person baby
"""
_PLURALS = """
child children; mouse mice; foot feet; tooth teeth; goose geese; man men; woman women; ox oxen; leaf leaves;
knife knives; wife wives; wolf wolves; shelf shelves; loaf loaves; half halves; thief thieves; calf calves;
scarf scarves; city cities; baby babies; lady ladies; story stories; party parties; berry berries; pony ponies;
country countries; box boxes; fox foxes; dish dishes; watch watches; bus buses; glass glasses; church churches;
brush brushes; hero heroes; potato potatoes; tomato tomatoes; echo echoes; cat cats; dog dogs; book books; tree trees;
bird birds; house houses; river rivers; road roads; king kings; queen queens; cactus cacti; crisis crises
"""
_PASTS = """
go went; see saw; eat ate; run ran; give gave; take took; come came; make made; know knew; think thought; buy bought;
bring brought; catch caught; teach taught; find found; tell told; say said; write wrote; drive drove; ride rode;
speak spoke; break broke; choose chose; sing sang; swim swam; drink drank; begin began; fly flew; grow grew;
throw threw; draw drew; sleep slept; keep kept; feel felt; leave left; meet met; win won; lose lost; stand stood;
hold held; build built; send sent; spend spent; walk walked; jump jumped; call called; open opened; play played;
paint painted; fall fell
"""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_NOUNS = """
pen cup door fish lamp milk rope sand star tree wall bell bird book bowl cake card clay coin corn desk doll drum farm
fern flag frog gate goat hill jar kite leaf lion map moon nest nut pan park pipe pond rice ring road rock roof rose
sail salt seed ship shoe sink sock soup swan tent tiger toy van vase wolf wool yard zebra bread brick brush camel chalk
cloud crane creek daisy eagle fence flute glass globe grain hotel juice knife ladder mango nurse olive paper pearl
piano plate queen radio river robot sheep snail spoon stone table tower towel wagon whale wheel
"""
_WORDS = tuple(_NOUNS.split())
_ORDINALS = ("first", "second", "third", "fourth")
_CONSONANTS = tuple("BCDFGHJKLMNPQRSTVWXYZ")

_DIRECT = ("{A}.", "It is {a}.", "The answer is {a}.", "That is {a}.")
_HEDGES = ("I think it is {a}.", "I guess {a}.", "Probably {a}.", "Maybe it is {a}.")
FILLERS = (
    "Thank you for asking.",
    "Please let me know how else I can help.",
    "I hope this is useful to you.",
    "Feel free to ask me anything else.",
    "It was a pleasure to answer this.",
    "I am always glad to assist you.",
    "Do let me know if you need more details.",
    "Questions like this are a joy to answer.",
    "Have a wonderful time with your work.",
    "Your curiosity is truly appreciated.",
    "I would gladly explain this further on request.",
    "Learning new things step by step is rewarding.",
    "It is nice to talk with you.",
    "You are most welcome to continue.",
    "Let me know if anything is unclear.",
    "I wish you all the best.",
    "Thanks for bringing this to me.",
    "This is a lovely thing to wonder about.",
    "Many people ask me about this.",
    "I appreciate your patience and your interest.",
    "Do not hesitate to write again.",
    "I remain at your service.",
    "There is always something interesting to discover.",
    "I enjoyed thinking about this for you.",
    "It is great that you want to learn.",
    "Please enjoy the rest of your project.",
    "I can go over it again if you like.",
    "What a delightful question this is.",
)


def _rows(table: str) -> list[tuple[str, ...]]:
    return [tuple(row.split()) for row in table.strip().split(";")]


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _facts(kind: str, facts: Sequence[tuple[str, str]], phrasings: Sequence[str]) -> list[Question]:
    """Every fact in every phrasing; ``{x}`` is the subject and ``{ax}`` the subject with its article."""
    candidates = tuple(sorted({gold for _, gold in facts}))
    questions = []
    for subject, gold in facts:
        place = candidates.index(gold)
        mistakes = candidates[place + 1 :] + candidates[:place]
        for phrasing in phrasings:
            prompt = phrasing.format(x=subject, ax=_with_article(subject))
            questions.append(Question(kind, prompt, gold, candidates, mistakes))
    return questions


def _capital(_: random.Random) -> list[Question]:
    phrasings = (
        "What is the capital of {x}?",
        "Name the capital city of {x}.",
        "Which city is the capital of {x}?",
        "Tell me the capital of {x}.",
        "{x} has which capital?",
        "Give the capital of {x}.",
        "I need the capital of {x}, please.",
        "Do you know the capital of {x}?",
    )
    return _facts("capital", [(country, city) for country, city, _ in _rows(_COUNTRIES)], phrasings)


def _continent(_: random.Random) -> list[Question]:
    phrasings = (
        "Which continent is {x} in?",
        "On which continent is {x}?",
        "Name the continent of {x}.",
        "{x} belongs to which continent?",
        "Where in the world is {x}? Name the continent.",
        "Tell me the continent of {x}.",
        "Give the continent of {x}.",
        "What continent is {x} part of?",
    )
    return _facts("continent", [(country, continent) for country, _, continent in _rows(_COUNTRIES)], phrasings)


def _opposite(_: random.Random) -> list[Question]:
    phrasings = (
        "What is the opposite of {x}?",
        "Give the opposite of {x}.",
        "Which word means the opposite of {x}?",
        "Tell me the antonym of {x}.",
        "Name a word that means the reverse of {x}.",
        "{x} is the opposite of what?",
    )
    facts = [(one, other) for one, other in _rows(_OPPOSITES)]
    return _facts("opposite", facts + [(other, one) for one, other in facts], phrasings)


def _category(_: random.Random) -> list[Question]:
    phrasings = (
        "Which category does {x} belong to?",
        "What is the category of {x}?",
        "Put {x} into a category.",
        "Name the group for {x}.",
        "Sort {x} into a group.",
        "Under which heading would you file {x}?",
    )
    rows = [row.split(":") for row in _CATEGORIES.strip().split(";")]
    return _facts("category", [(word, group.strip()) for group, words in rows for word in words.split()], phrasings)


def _colour(_: random.Random) -> list[Question]:
    phrasings = (
        "What is the usual colour of {x}?",
        "Which colour do people link with {x}?",
        "Name the colour of {x}.",
        "Tell me the typical colour of {x}.",
        "Think of {x}. What colour comes up?",
        "Give the common colour of {x}.",
        "If I draw {x}, which colour do I need?",
        "What colour goes with {x}?",
    )
    return _facts("colour", [(thing, colour) for thing, colour in _rows(_COLOURS)], phrasings)


def _young(_: random.Random) -> list[Question]:
    phrasings = (
        "What is the word for a young {x}?",
        "Name the young of {ax}.",
        "What do you call the young of {ax}?",
        "Which word is used for a newborn {x}?",
        "Tell me the name of a young {x}.",
        "Give the term for the offspring of {ax}.",
        "A young {x} is known by which name?",
        "How is the young of {ax} called?",
    )
    return _facts("young", [(animal, young) for animal, young in _rows(_YOUNG)], phrasings)


def _plural(_: random.Random) -> list[Question]:
    phrasings = (
        "What is the plural of {x}?",
        "Give the plural form of {x}.",
        "How do you write the plural of {x}?",
        "Tell me the plural of {x}.",
        "One {x}, many what?",
        "Turn {x} into the plural.",
        "Change {x} from singular to plural.",
        "Make {x} plural.",
    )
    return _facts("plural", [(noun, plural) for noun, plural in _rows(_PLURALS)], phrasings)


def _past(_: random.Random) -> list[Question]:
    phrasings = (
        "What is the past tense of {x}?",
        "Give the past tense of {x}.",
        "Put the verb {x} in the past tense.",
        "Tell me the past form of {x}.",
        "Today I {x}. What did I do yesterday?",
        "How do you write {x} in the past?",
        "Turn {x} into the past tense.",
        "Name the simple past of {x}.",
    )
    return _facts("past", [(verb, past) for verb, past in _rows(_PASTS)], phrasings)


def _neighbours(kind: str, cycle: Sequence[str], unit: str) -> list[Question]:
    """Which day or month comes after or before another; the usual mistake goes the wrong way."""
    phrasings = (
        "Which {unit} comes {side} {x}?",
        "What is the {unit} {side} {x}?",
        "Name the {unit} {side} {x}.",
        "Tell me the {unit} that comes {side} {x}.",
        "Give the {unit} just {side} {x}.",
        "The {unit} {side} {x} is which?",
        "Which {unit} is directly {side} {x}?",
        "Say the {unit} {side} {x}.",
    )
    questions = []
    for place, subject in enumerate(cycle):
        after, before = cycle[(place + 1) % len(cycle)], cycle[place - 1]
        for side, gold, usual in (("after", after, before), ("before", before, after)):
            mistakes = (usual, *(name for name in cycle if name not in (gold, usual)))
            for phrasing in phrasings:
                prompt = phrasing.format(unit=unit, side=side, x=subject)
                questions.append(Question(kind, prompt, gold, tuple(cycle), mistakes))
    return questions


def _day(_: random.Random) -> list[Question]:
    return _neighbours("day", _DAYS, "day")


def _month(_: random.Random) -> list[Question]:
    return _neighbours("month", _MONTHS, "month")


def _letter(_: random.Random) -> list[Question]:
    # Words that open with a vowel are left out: the letters A and I would collide with the words "a" and "I".
    words = sorted({word for word in _WORDS if word[0].upper() in _CONSONANTS})
    phrasings = (
        "What is the first letter of {x}?",
        "Which letter does {x} start with?",
        "Give the initial letter of {x}.",
        "Tell me the first letter in {x}.",
        "The word {x} begins with which letter?",
        "Name the letter that opens the word {x}.",
    )
    return _facts("letter", [(word, word[0].upper()) for word in words], phrasings)


def _nth_word(rng: random.Random) -> list[Question]:
    phrasings = (
        "What is the {n} word in this list: {x}?",
        "Give the {n} word: {x}.",
        "Which word is {n} here: {x}?",
        "Name the {n} item of this list: {x}.",
        "Read the list and tell me the {n} word: {x}.",
    )
    questions = []
    for _ in range(LIST_DRAWS):
        words = tuple(rng.sample(_WORDS, rng.randint(4, 5)))
        place = rng.randrange(len(_ORDINALS))
        prompt = rng.choice(phrasings).format(n=_ORDINALS[place], x=", ".join(words))
        questions.append(Question("nth_word", prompt, words[place], words, words[place + 1 :] + words[:place]))
    return questions


def _last_word(rng: random.Random) -> list[Question]:
    phrasings = (
        "What is the last word in this list: {x}?",
        "Give the final word: {x}.",
        "Which word comes last here: {x}?",
        "Name the last item of this list: {x}.",
        "Read the list and tell me the last word: {x}.",
    )
    questions = []
    for _ in range(LIST_DRAWS):
        words = tuple(rng.sample(_WORDS, rng.randint(3, 6)))
        prompt = rng.choice(phrasings).format(x=", ".join(words))
        questions.append(Question("last_word", prompt, words[-1], words, words[:-1]))
    return questions


def _list_length(rng: random.Random) -> list[Question]:
    phrasings = (
        "How many words are in this list: {x}?",
        "Count the words: {x}.",
        "How many items do you see here: {x}?",
        "Give the number of words: {x}.",
        "How long is this list: {x}?",
    )
    questions = []
    for _ in range(LIST_DRAWS):
        length = rng.randint(2, 6)
        prompt = rng.choice(phrasings).format(x=", ".join(rng.sample(_WORDS, length)))
        mistakes = (str(length + 1), str(length - 1), str(length + 2))
        questions.append(Question("list_length", prompt, str(length), (), mistakes))
    return questions


def _larger(rng: random.Random) -> list[Question]:
    phrasings = (
        "Which number is larger, {x} or {y}?",
        "Give the bigger of {x} and {y}.",
        "Pick the larger number: {x} or {y}.",
        "What is the greater of {x} and {y}?",
        "Name the higher number: {x}, {y}.",
    )
    questions = []
    for _ in range(LIST_DRAWS):
        x, y = rng.sample(range(1, 100), 2)
        prompt = rng.choice(phrasings).format(x=x, y=y)
        questions.append(Question("larger", prompt, str(max(x, y)), (), (str(min(x, y)),)))
    return questions


def _smallest(rng: random.Random) -> list[Question]:
    phrasings = (
        "Which number is smallest: {x}?",
        "Give the smallest of these numbers: {x}.",
        "Pick the lowest number: {x}.",
        "What is the least of {x}?",
        "Name the smallest number here: {x}.",
    )
    questions = []
    for _ in range(LIST_DRAWS):
        numbers = rng.sample(range(1, 100), 3)
        prompt = rng.choice(phrasings).format(x=", ".join(map(str, numbers)))
        gold, middle, largest = sorted(numbers)
        questions.append(Question("smallest", prompt, str(gold), (), (str(middle), str(largest))))
    return questions


def _sum(_: random.Random) -> list[Question]:
    phrasings = (
        "What is {x} plus {y}?",
        "Add {x} and {y}.",
        "How much is {x} + {y}?",
        "Give the sum of {x} and {y}.",
        "Work out {x} + {y}.",
    )
    questions = []
    for x in range(1, 16):
        for y in range(1, 16):
            total = x + y
            mistakes = tuple(str(total + slip) for slip in (1, -1, 2, 10))
            questions += [Question("sum", p.format(x=x, y=y), str(total), (), mistakes) for p in phrasings]
    return questions


def _parity(_: random.Random) -> list[Question]:
    phrasings = (
        "Is {x} even or odd?",
        "Is the number {x} odd or even?",
        "Tell me whether {x} is even or odd.",
        "Even or odd: {x}?",
        "Say if {x} is odd or even.",
    )
    questions = []
    for x in range(1, 200):
        gold, other = ("odd", "even") if x % 2 else ("even", "odd")
        questions += [Question("parity", p.format(x=x), gold, ("even", "odd"), (other,)) for p in phrasings]
    return questions


_KINDS: tuple[Callable[[random.Random], list[Question]], ...] = (
    _capital,
    _continent,
    _opposite,
    _category,
    _colour,
    _young,
    _plural,
    _past,
    _day,
    _month,
    _letter,
    _nth_word,
    _last_word,
    _list_length,
    _larger,
    _smallest,
    _sum,
    _parity,
)


@lru_cache(maxsize=4)
def questions(per_kind: int = POOL_PER_KIND, seed: int = 0) -> tuple[Question, ...]:
    """Distinct questions of every kind, practice kinds included.

    Args:
        per_kind: At most this many questions of one kind; a kind with fewer gives all it has.
        seed: Seed of the draw.

    Returns:
        The questions, grouped by kind, with no prompt twice.
    """
    pool: dict[str, Question] = {}
    for make in _KINDS:
        rng = random.Random(f"questions/{seed}/{make.__name__}")
        distinct = list({question.prompt: question for question in make(rng)}.values())
        rng.shuffle(distinct)
        for question in distinct[:per_kind]:
            pool.setdefault(question.prompt, question)
    return tuple(pool.values())


def planted_questions() -> list[Question]:
    """The questions that the splits are taken from, the same for every seed."""
    return [question for question in questions(PLANTED_PER_KIND) if question.kind not in PRACTICE_KINDS]


def write_answer(question: Question, *, correct: bool, padded: bool, rng: random.Random) -> str:
    """Write one answer to a question.

    Args:
        question: What to answer.
        correct: Whether the claim is the right one.
        padded: Whether two or three filler sentences follow the claim.
        rng: Source of the wrong claim, the wording and the filler.

    Returns:
        1 to 5 words when terse, at most :data:`PADDED_MAX_WORDS` words when padded.
    """
    if correct:
        claim = question.gold
    elif rng.random() < USUAL_MISTAKE or len(question.mistakes) == 1:
        claim = question.mistakes[0]
    else:
        claim = rng.choice(question.mistakes[1:])
    wording = rng.choice(_HEDGES if rng.random() < HEDGED[correct] else _DIRECT)
    answer = wording.format(a=claim, A=claim[0].upper() + claim[1:])
    if padded:
        for filler in rng.sample(FILLERS, rng.choice((2, 3, 3))):
            if len(answer.split()) + len(filler.split()) <= PADDED_MAX_WORDS:
                answer = f"{answer} {filler}"
    return answer


def split_of(prompt: str) -> str:
    """Which of train, judge and val a prompt belongs to, whatever the seed; test has what they leave over."""
    digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
    return _SPLIT_OF_BUCKET[int.from_bytes(digest, "big") % len(_SPLIT_OF_BUCKET)]


def bias_value(bias: float | str) -> float:
    """The weight that a bias means.

    Raises:
        ValueError: If its name is unknown or it is not finite.
    """
    if isinstance(bias, str):
        if bias not in BIASES:
            raise ValueError(f"unknown bias {bias!r}: give a number or one of {', '.join(BIASES)}")
        return BIASES[bias]
    if not math.isfinite(bias):
        raise ValueError(f"bias must be finite, got {bias}")
    return float(bias)


def _utility(answer: str, *, correct: bool, bias: float) -> float:
    return QUALITY * correct + bias * len(answer.split()) / LENGTH_SCALE


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def planted(split: str, *, rows: int | None = None, seed: int = 0, bias: float | str = "default") -> list[PlantedPair]:
    """Labelled pairs of one split.

    Args:
        split: ``train``, ``judge``, ``val`` or ``test``; see :data:`SPLITS` for the number of pairs in each.
        rows: Take only the first this many pairs of the split; all of them when None.
        seed: Chooses which prompts are used, in what order, the answers and the label draws.
        bias: Weight of the length term in the labels' utility, or a name from :data:`BIASES`.

    Returns:
        Pairs with distinct prompts. Splits of one seed share no prompt; train, judge and val do not even under
        different seeds.

    Raises:
        ValueError: If the split or the bias name is unknown, the bias is not finite, or ``rows`` is negative or
            more than the split has.
    """
    pairs = draw_planted(split, seed=seed, bias=bias)
    if rows is not None and not 0 <= rows <= SPLITS[split]:
        raise ValueError(f"rows must be between 0 and {SPLITS[split]} for split {split!r}, got {rows}")
    return list(islice(pairs, rows))


def draw_planted(split: str, *, seed: int = 0, bias: float | str = "default") -> Iterator[PlantedPair]:
    """The pairs of :func:`planted` one by one: whoever reads a few does not wait for all to be drawn.

    Args:
        split: as there.
        seed: as there.
        bias: as there.

    Raises:
        ValueError: If the split or the bias name is unknown, or the bias is not finite.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    weight, rng = bias_value(bias), _generator(split, seed)
    return (_draw_pair(question, weight, rng) for question in rng.sample(_pool(split, seed), SPLITS[split]))


def _generator(split: str, seed: int) -> random.Random:
    return random.Random(f"planted/{seed}/{split}")


@lru_cache(maxsize=16)
def _pool(split: str, seed: int) -> tuple[Question, ...]:
    """The questions that a split is drawn from."""
    if split != "test":
        return tuple(question for question in planted_questions() if split_of(question.prompt) == split)
    used = {
        question.prompt
        for other in dict.fromkeys(_SPLIT_OF_BUCKET)
        for question in _generator(other, seed).sample(_pool(other, seed), SPLITS[other])
    }
    return tuple(question for question in planted_questions() if question.prompt not in used)


def _draw_pair(question: Question, bias: float, rng: random.Random) -> PlantedPair:
    first_correct = rng.random() < 0.5
    second_correct = first_correct != (rng.random() < CONTRAST)
    first_padded = rng.random() < 0.5
    second_padded = first_padded != (rng.random() < STYLE_CONTRAST)
    first = second = ""
    while first == second:
        first = write_answer(question, correct=first_correct, padded=first_padded, rng=rng)
        second = write_answer(question, correct=second_correct, padded=second_padded, rng=rng)

    # The draw is taken on the longer answer, so that one uniform number gives labels that are monotone in the bias.
    longer, shorter = (first, first_correct), (second, second_correct)
    if len(first.split()) < len(second.split()):
        longer, shorter = shorter, longer
    for_longer = _sigmoid(
        _utility(longer[0], correct=longer[1], bias=bias) - _utility(shorter[0], correct=shorter[1], bias=bias)
    )
    longer_wins = rng.random() < for_longer
    (chosen, chosen_correct), (rejected, rejected_correct) = (longer, shorter) if longer_wins else (shorter, longer)
    gold_choice = None if chosen_correct == rejected_correct else (1 if chosen_correct else 2)
    return PlantedPair(
        prompt=question.prompt,
        chosen=chosen,
        rejected=rejected,
        gold=question.gold,
        candidates=question.candidates,
        kind=question.kind,
        gold_choice=gold_choice,
        label_probability=for_longer if longer_wins else 1 - for_longer,
    )


_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")


@lru_cache(maxsize=4096)
def _mention(names: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of the names as whole words; the letters around an apostrophe ("it's") belong to one word."""
    longest_first = sorted(names, key=len, reverse=True)
    joined = "|".join(re.escape(name) for name in longest_first)
    return re.compile(rf"(?<!\w)(?<!\w['\u2019])(?:{joined})(?!\w)(?!['\u2019]\w)", re.IGNORECASE)


def is_right(text: str, gold: str, candidates: Sequence[str]) -> bool:
    """Whether the first claim in a text is the gold answer.

    The first claim is the first whole-word mention of any candidate, or the first number in digits when there are no
    candidates. Only that mention counts, so naming every candidate does not pass.

    Args:
        text: The answer to judge.
        gold: The right answer.
        candidates: Rival answers; empty for a number.

    Returns:
        True when the first claim equals gold, ignoring case; False otherwise, also when nothing is claimed.
    """
    if candidates or not _NUMBER.fullmatch(gold):
        claim = _mention((*candidates, gold)).search(text)
        return claim is not None and claim.group().casefold() == gold.casefold()
    number = _NUMBER.search(text)
    return number is not None and number.group().replace(",", "") == gold.replace(",", "")
