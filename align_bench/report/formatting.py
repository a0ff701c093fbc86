"""Numbers and foreign text as a reader sees them. Undefined is `n/a`."""

from __future__ import annotations

from align_bench.records import Estimate

UNDEFINED = "n/a"
LOPSIDED = 0.1  # share of half the interval by which its sides may differ and still be shown as one


def number(value: float | None, *, signed: bool = False) -> str:
    """A number to three decimals, or to four significant digits from 1000 on.

    >>> number(-0.11799), number(0.05, signed=True), number(123456.0), number(None)
    ('-0.118', '+0.050', '1.235e+05', 'n/a')
    """
    if value is None:
        return UNDEFINED
    sign = "+" if signed else ""
    value = 0.0 if abs(value) < 0.0005 else value  # not "-0.000"
    return format(value, f"{sign}.4g" if abs(value) >= 1000 else f"{sign}.3f")


def signed(value: float | None) -> str:
    """A difference: `number` with its sign."""
    return number(value, signed=True)


def with_spread(estimate: Estimate) -> str:
    """An estimate with its 95% interval; without one where it has none.

    `±` is the distance to both bounds, the larger one where they differ by less than a tenth; a lopsided interval has
    the distance to each.

    >>> with_spread(Estimate(0.758, 0.731, 0.785)), with_spread(Estimate(0.984, 0.972, 0.991))
    ('0.758 ±0.027', '0.984 -0.012/+0.007')
    >>> with_spread(Estimate(0.758)), with_spread(Estimate(None))
    ('0.758', 'n/a')
    """
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return number(estimate.value)
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    if abs(above - below) <= LOPSIDED * (above + below) / 2 or number(below) == number(above):
        return f"{number(estimate.value)} ±{number(max(below, above))}"
    return f"{number(estimate.value)} {signed(-below)}/{signed(above)}"


def plus_minus(value: float | None, margin: float | None, decimals: int = 3) -> str:
    """A number with what stands around it.

    >>> plus_minus(0.7582, 0.0271), plus_minus(0.7582, 0.0271, 2), plus_minus(0.5, None), plus_minus(None, None)
    ('0.758 ±0.027', '0.76 ±0.03', '0.500', 'n/a')
    """
    if value is None:
        return UNDEFINED
    shown = [format(one, f".{decimals}f") if abs(one) < 1000 else f"{one:.4g}" for one in (value, margin or 0.0)]
    return shown[0] if margin is None else f"{shown[0]} ±{shown[1]}"


def tenths(value: float | None) -> str:
    """A number to one decimal, for words, tokens and grades."""
    return UNDEFINED if value is None else f"{value:.1f}"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return UNDEFINED if value is None else f"{value:.1%}"


def counted(number: int, what: str) -> str:
    """A number of things in words.

    >>> counted(1, "cell"), counted(1200, "cell")
    ('one cell', '1,200 cells')
    """
    return f"one {what}" if number == 1 else f"{number:,} {what}s"


def interval(low: float | None, high: float | None) -> str:
    """The bounds of a difference."""
    return UNDEFINED if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def p_value(p: float | None) -> str:
    """A p-value: three decimals, or two digits with exponent below 0.001. 1e-300 stands for that or less.

    >>> p_value(0.0414), p_value(5.4e-33), p_value(0.0), p_value(None)
    ('0.041', '5.4e-33', '<1e-300', 'n/a')
    """
    if p is None:
        return UNDEFINED
    if p <= 1e-300:
        return "<1e-300"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def duration(seconds: float | None) -> str:
    """Wall-clock time.

    >>> duration(7.26), duration(754), duration(7380), duration(None)
    ('7.3 s', '12 min 34 s', '2 h 3 min', 'n/a')
    """
    if seconds is None:
        return UNDEFINED
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int | None) -> str:
    """Bytes in binary units.

    >>> size(1536), size(3 * 2**30), size(None)
    ('1.5 KiB', '3.0 GiB', 'n/a')
    """
    if count is None:
        return UNDEFINED
    amount, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def tera(count: float | None) -> str:
    """Operations in units of 10¹², to three significant digits.

    >>> tera(2.4567e12), tera(3.1e9), tera(None)
    ('2.46', '0.0031', 'n/a')
    """
    return UNDEFINED if count is None else f"{count / 1e12:,.3g}"


def count(value: int | None) -> str:
    """A whole number.

    >>> count(1234567), count(None)
    ('1,234,567', 'n/a')
    """
    return UNDEFINED if value is None else f"{value:,}"


def one_line(text: object) -> str:
    """Foreign text on one line, with control characters (terminal escapes, bidi overrides) spelled out.

    >>> one_line("a\\n b\\x1b[2J")
    'a b\\\\x1b[2J'
    """
    joined = " ".join(str(text).split())
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in joined
    )


def visible(text: object) -> str:
    r"""Foreign text with its line breaks, in which control characters are spelled out as `one_line` does.

    >>> visible("a\x1b[2J")
    'a\\x1b[2J'
    """
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode("ascii")
        for letter in str(text).expandtabs(4)
    )


def clipped(text: str, limit: int = 1000) -> str:
    """A text that is not longer than a table can show; what is cut is counted.

    >>> clipped("abcdef", 3)
    'abc… (3 more characters)'
    """
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} more characters)"
