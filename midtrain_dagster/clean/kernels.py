# mypy: disable-error-code="no-untyped-def"
"""Kernels over text buffers: UTF-8 to code points, and code points to words as spaCy's English tokenizer cuts them.

A document is decoded once into scratch arrays (`points`, `flags`), then cut into words (`words.split`); all later counting
works on those. Only `document.measure` is kept on disk as machine code: what it calls is compiled into it.
The difference from spaCy: the address rule is simplified (`is_address`).
"""

from typing import Any

import numpy as np
from numba import njit  # noqa: TID253
from numba.core import cgutils  # noqa: TID253
from numba.extending import intrinsic  # noqa: TID253

from midtrain_dagster.clean import characters as c

SPACE, ALPHA, ALNUM, DIGIT, LOWER, UPPER = c.SPACE, c.ALPHA, c.ALNUM, c.DIGIT, c.LOWER, c.UPPER
AFFIX, QUOTE, CURRENCY, HYPHEN, ICON, PUNCT = c.AFFIX, c.QUOTE, c.CURRENCY, c.HYPHEN, c.ICON, c.UNICODE_PUNCTUATION
BREAK_BIT = c.LINE_BREAK.bit_length() - 1
BEYOND = c.ALPHA | c.ALNUM | c.LOWER  # an ideograph of a higher plane
DOT, ELLIPSIS, PLUS, DOLLAR, SLASH, COLON, APOSTROPHE, CURLY = 46, 0x2026, 43, 36, 47, 58, 39, 0x2019
PERCENT, SECTION, EQUALS = 37, 0xA7, 61


@intrinsic
def borrowed(context: Any, array: Any) -> Any:
    """The same array without its reference count, which every call would raise and lower: the caller keeps it alive."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(array)(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), generate


@njit(nogil=True)
def mix(value):
    """Finish a 64-bit hash: every input bit reaches every output bit."""
    value ^= value >> np.uint64(32)
    value *= np.uint64(0xD6E8FEB86659FD93)
    value ^= value >> np.uint64(32)
    return value


@njit(nogil=True)
def hash_points(points, start, end):
    """64-bit hash of `points[start:end]`, never 0."""
    value = np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(end - start)
    i = start
    while i + 2 < end:  # three a step: a point has 21 bits
        three = np.uint64(points[i]) | np.uint64(points[i + 1]) << np.uint64(21) | np.uint64(points[i + 2]) << np.uint64(42)
        value = (value ^ three) * np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(32)
        i += 3
    while i < end:
        value = (value ^ np.uint64(points[i])) * np.uint64(0xC4CEB9FE1A85EC53)
        i += 1
    return mix(value) | np.uint64(1)


@njit(nogil=True)
def decode(data, table, points, flags, breaks):
    """Code points and their flags of valid UTF-8, and where its line breaks are; returns how many of both."""
    n, i, found, end = 0, 0, 0, data.size
    while i < end:
        point = np.int32(data[i])
        if point < 0x80:
            i += 1
        elif point < 0xE0:
            point = (point & 0x1F) << 6 | np.int32(data[i + 1]) & 0x3F
            i += 2
        elif point < 0xF0:
            point = (point & 0x0F) << 12 | (np.int32(data[i + 1]) & 0x3F) << 6 | np.int32(data[i + 2]) & 0x3F
            i += 3
        else:
            point = (point & 0x07) << 18 | (np.int32(data[i + 1]) & 0x3F) << 12
            point |= (np.int32(data[i + 2]) & 0x3F) << 6 | np.int32(data[i + 3]) & 0x3F
            i += 4
        flag = table[point] if point < table.size else (BEYOND if point < 0x32000 else 0)
        points[n], flags[n], breaks[found] = point, flag, n
        found += flag >> BREAK_BIT & 1
        n += 1
    return n, found


@njit(nogil=True)
def lookup(points, start, end, keys, splits):
    """The word starts of an exception (see `contractions.Splits`), or 0 where `points[start:end]` is none."""
    if end - start > 12 or end <= start:
        return 0
    first, last = points[start], points[end - 1]
    if first < 128 and last < 128 and splits[keys.size + first * 128 + last] == 0:
        return 0
    return find(hash_points(points, start, end), keys, splits)


@njit(nogil=True)
def find(key, keys, splits):
    """What `lookup` returns, by the hash of the chunk."""
    slot = np.int64(key & np.uint64(keys.size - 1))
    while keys[slot] != 0:
        if keys[slot] == key:
            return splits[slot]
        slot = (slot + 1) & (keys.size - 1)
    return 0


@njit(nogil=True)
def prefix_length(points, flags, a, b):
    """How many characters at the front of `points[a:b]` are a word of their own."""
    point, flag = points[a], flags[a]
    if flag & (AFFIX | ICON | CURRENCY):
        return 1
    if point == PLUS:
        return 0 if b - a > 1 and flags[a + 1] & DIGIT else 1
    if point == DOT:
        n = 0
        while a + n < b and points[a + n] == DOT:
            n += 1
        return n if n > 1 else 0
    if b - a > 1 and points[a + 1] == DOLLAR and (point == 67 or point == 65):  # C$, A$
        return 2
    if b - a > 2 and point == 85 and points[a + 1] == 83 and points[a + 2] == DOLLAR:  # US$
        return 3
    return 0


@njit(nogil=True)
def suffix_length(points, flags, a, b, units):
    """How many characters at the end of `points[a:b]` are a word of their own."""
    if b <= a:
        return 0
    last, flag = points[b - 1], flags[b - 1]
    before = points[b - 2] if b - a > 1 else 0
    if last == DOT:
        n = 1
        while b - n - 1 >= a and points[b - n - 1] == DOT:
            n += 1
        if n > 1:
            return n
        if b - a < 2:
            return 0
        f = flags[b - 2]
        if f & (DIGIT | LOWER | AFFIX | QUOTE) and before != 0x2014 and before != 0x2013 and before != 0xA7 and before != 61:
            return 1
        if before == 0x2B or before == 0x2D or before == 0xB2 or before == 0x7C:
            return 1
        return 1 if b - a > 2 and f & UPPER and flags[b - 3] & UPPER else 0
    if (last == 115 or last == 83) and (before == APOSTROPHE or before == CURLY):  # noqa: SIM109
        return 2
    if last == PERCENT:
        return 1 if b - a > 1 and flags[b - 2] & DIGIT else 0
    if flag & (AFFIX | ICON) and last != SECTION and last != EQUALS:
        return 1
    if b - a < 2:
        return 0
    if last == PLUS or flag & CURRENCY:
        return 1 if flags[b - 2] & DIGIT else 0
    if flag & (ALPHA | ALNUM) or last == 0xB2 or last == 0xB3:
        for n in range(4, 0, -1):
            if b - n > a and flags[b - n - 1] & DIGIT and not flags[b - n] & DIGIT:
                key = hash_points(points, b - n, b)
                slot = np.searchsorted(units, key)
                if slot < units.size and units[slot] == key:
                    return n
    return 0


@njit(nogil=True)
def is_address(points, flags, a, b):
    """Whether `points[a:b]` reads as a web or mail address: [scheme://][user@]host.tld[:port][/path]."""
    i, start = a, a
    while i < b and points[i] != DOT:
        i += 1
    if i == b:
        return False
    i = a
    while i + 2 < b:  # after a scheme
        if points[i] == COLON and points[i + 1] == SLASH and points[i + 2] == SLASH:
            if i - a >= 2:
                start = i + 3
            break
        i += 1
    end = start
    while end < b and points[end] != SLASH and points[end] != 63 and points[end] != 35:
        end += 1
    for i in range(start + 1, b):  # after a user's name
        if points[i] == 64:
            start, end = i + 1, max(end, i + 1)
    if end <= start:
        end = start
        while end < b and points[end] != SLASH and points[end] != 63 and points[end] != 35:
            end += 1
    return is_host(points, flags, start, end)


@njit(nogil=True)
def is_host(points, flags, start, end):
    """Whether `points[start:end]` is an IPv4 address, or labels with dots between, the last of two or more lower-case letters."""
    port = end
    while port > start and flags[port - 1] & DIGIT:
        port -= 1
    if port > start and points[port - 1] == COLON and 2 <= end - port <= 5:
        end = port - 1
    dots, label, digits = 0, start, True
    for i in range(start, end):
        if points[i] == DOT:
            if i == label or points[i - 1] == 95 or points[i - 1] == 45:
                return False
            dots, label = dots + 1, i + 1
        elif not (flags[i] & ALNUM or points[i] >= 0xA1 or (i > label and (points[i] == 95 or points[i] == 45))):
            return False
        elif not flags[i] & DIGIT:
            digits = False
    if digits and dots == 3:
        return end - label > 0
    if dots == 0 or end - label < 2:
        return False
    for i in range(label, end):  # noqa: SIM110
        if not flags[i] & LOWER:
            return False
    return True


@njit(nogil=True)
def infix_length(points, flags, a, b, i):
    """How many characters at `i`, inside `points[a:b]`, split what is left of them from what is right."""
    point = points[i]
    if point == ELLIPSIS or flags[i] & ICON:
        return 1
    if point == DOT:
        n = 1
        while i + n < b and points[i + n] == DOT:
            n += 1
        if n > 1:
            return n
        both = i > a and i + 1 < b
        return 1 if both and flags[i - 1] & (LOWER | QUOTE) and flags[i + 1] & (UPPER | QUOTE) else 0
    if i == a or i + 1 >= b:
        return 0
    left, right = flags[i - 1], flags[i + 1]
    if (point == 43 or point == 45 or point == 42 or point == 94) and left & DIGIT and (right & DIGIT or points[i + 1] == 45):
        return 1
    if point == 44:
        return 1 if left & ALPHA and right & ALPHA else 0
    if flags[i] & HYPHEN and left & (ALPHA | DIGIT):
        n = 1
        while n < 3 and i + n < b and points[i + n] == point and point != 126 and point != 0x2013:
            n += 1
        while n > 0:
            if i + n < b and flags[i + n] & ALPHA:
                return n
            n -= 1
        return 0
    if (point == COLON or point == SLASH or 60 <= point <= 62) and left & (ALPHA | DIGIT) and right & ALPHA:  # noqa: SIM109
        return 1
    return 0


@njit(nogil=True)
def emit_infixes(points, flags, a, b, starts, ends, count):
    """Cut `points[a:b]` at its infixes and write the words."""
    word, i = a, a
    while i < b:
        n = 0 if flags[i] & ALNUM else infix_length(points, flags, a, b, i)
        if n == 0 or i == a:
            i += 1 if n == 0 else n
            continue
        if i > word:
            starts[count], ends[count] = word, i
            count += 1
        starts[count], ends[count] = i, i + n
        count += 1
        i += n
        word = i
    if b > word:
        starts[count], ends[count] = word, b
        count += 1
    return count


@njit(nogil=True)
def emit_exception(bits, a, b, starts, ends, count):
    """Write the words of an exception."""
    first = a
    for i in range(1, b - a):
        if bits >> i & 1:
            starts[count], ends[count] = first, a + i
            count, first = count + 1, a + i
    starts[count], ends[count] = first, b
    return count + 1


@njit(nogil=True)
def split_chunk(points, flags, a, b, keys, splits, units, suffixes, starts, ends, count):
    """Cut what stands between two spaces: affixes from both ends inwards, then exceptions, addresses, infixes."""
    lo, hi, found, bits, first = a, b, 0, 0, count
    while lo < hi:
        bits = lookup(points, lo, hi, keys, splits)
        if bits:
            break
        prefix = prefix_length(points, flags, lo, hi)
        if prefix and lookup(points, lo + prefix, hi, keys, splits):
            starts[count], ends[count] = lo, lo + prefix
            count, lo = count + 1, lo + prefix
            continue
        suffix = suffix_length(points, flags, lo + prefix, hi, units)
        if prefix == 0 and suffix == 0:
            break
        if suffix and lookup(points, lo, hi - suffix, keys, splits):
            prefix = 0
        if prefix:
            starts[count], ends[count] = lo, lo + prefix
            count, lo = count + 1, lo + prefix
        if suffix:
            suffixes[found] = hi
            found, hi = found + 1, hi - suffix
    if lo < hi:
        if bits:
            count = emit_exception(bits, lo, hi, starts, ends, count)
        elif is_address(points, flags, lo, hi):
            starts[count], ends[count] = lo, hi
            count += 1
        else:
            count = emit_infixes(points, flags, lo, hi, starts, ends, count)
    while found:
        found -= 1
        starts[count], ends[count] = hi, suffixes[found]
        hi = suffixes[found]
        count += 1
    return rejoin(points, keys, splits, starts, ends, first, count)


@njit(nogil=True)
def rejoin(points, keys, splits, starts, ends, first, count):
    """Up to four words of a chunk that stand together for one exception, such as "):", are one again; returns the new count."""
    kept, w = first, first
    while w < count:
        last = min(w + 3, count - 1)
        while last > w and lookup(points, starts[w], ends[last], keys, splits) != 1:
            last -= 1
        starts[kept], ends[kept] = starts[w], ends[last]
        kept, w = kept + 1, last + 1
    return kept
