"""The compiled pass over whole corpora: bytes to words to candidates, nothing stored on the way.

Most documents hold no question. This pass finds out at about the speed of memory; only what it lets through is split into
arrays of words (`kernels.tokenise`) and aligned. The words are the same: both fold and hash alike.
"""

import numba  # noqa: TID253
import numpy as np

from midtrain_dagster.decontaminate.kernels import (
    BASE,
    MARK,
    PRIME,
    SEED,
    SINGLE,
    STEM_LETTERS,
    WORD,
    decoded,
    finished,
    slot_of,
)


@numba.njit(nogil=True, cache=True, inline="always")
def _known(h, bits, bitmap_bits, keys, values, bitmap):  # type: ignore[no-untyped-def]
    """The number of a key in a table, or -1; most misses end at the bitmap."""
    spot = slot_of(h, bitmap_bits)
    found = np.int32(-1)
    if (bitmap[spot >> 3] >> (spot & 7)) & 1:
        mask = (1 << bits) - 1
        slot = slot_of(h, bits)
        while values[slot] >= 0:
            if keys[slot] == h:
                found = values[slot]
                break
            slot = (slot + 1) & mask
    return found


@numba.njit(nogil=True, cache=True)
def _words_of(data, i, end, classes, folds, plain, out):  # type: ignore[no-untyped-def]
    """The hashes of the words in data[i:end], into `out`; returns their count. `plain` as in `rows_with_ngrams`."""
    count, h, letters = 0, SEED, False
    while i < end:
        c = plain[data[i]]
        while c != 0 and c != 255:
            h = (h ^ np.uint64(c)) * PRIME
            letters = True
            i += 1
            if i == end:
                break
            c = plain[data[i]]
        if i == end:
            break
        kind, code = 0, np.uint32(0)
        if c == 0:
            i += 1
        else:
            code, i = decoded(data, i, end)
            kind = classes[code] if code < len(classes) else SINGLE
            if kind == WORD:
                h = (h ^ np.uint64(folds[code])) * PRIME
                letters = True
                continue
            if kind == MARK and letters:
                continue
        if letters:
            out[count] = finished(h)
            count += 1
            h, letters = SEED, False
        if kind == SINGLE:
            out[count] = finished((SEED ^ np.uint64(code)) * PRIME)
            count += 1
    if letters:
        out[count] = finished(h)
        count += 1
    return count


@numba.njit(nogil=True, cache=True)
def mark_words(words, bits, bitmap):  # type: ignore[no-untyped-def]
    """Set the bit of each word in a bitmap of 2^bits bits."""
    mask = np.uint64((1 << bits) - 1)
    for i in range(len(words)):
        spot = words[i] & mask
        bitmap[spot >> np.uint64(3)] |= np.uint8(1) << np.uint8(spot & np.uint64(7))


@numba.njit(nogil=True, cache=True)
def rows_with_ngrams(data, offsets, classes, folds, plain, n, vocabulary, bits, bitmap_bits, keys, values, bitmap):  # type: ignore[no-untyped-def]
    """Whether each row has an n-gram of words that is in the table: bool (rows,).

    `plain` is the folded byte of each ASCII character of a word, 0 where it separates, 255 beyond ASCII. `vocabulary` (a bitmap of all
    words of the table's n-grams, small enough for the nearest cache) is asked first: only after n of its words in a row is the
    n-gram looked up. Words are found before n-grams, a row at a time, because a loop without the branches of reading
    characters waits for several places of the table at once.
    """
    top = np.uint64(1)
    for _ in range(n):
        top *= BASE
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    words = np.zeros(longest + n + 1, np.uint64)  # n zeros before the first word
    mask = np.uint64(8 * len(vocabulary) - 1)
    out = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(offsets) - 1):
        count = _words_of(data, offsets[row], offsets[row + 1], classes, folds, plain, words[n:])
        roll, known = np.uint64(0), 0
        for k in range(count):
            word = words[n + k]
            roll = roll * BASE + word
            if k >= n:
                roll -= top * words[k]
            spot = word & mask
            known = (known + 1) * np.int64((vocabulary[spot >> np.uint64(3)] >> (spot & np.uint64(7))) & np.uint8(1))
            if known >= n and _known(roll, bits, bitmap_bits, keys, values, bitmap) >= 0:
                out[row] = True
                break
    return out


@numba.njit(nogil=True, cache=True, inline="always")
def _stem(letters, last, before, six):  # type: ignore[no-untyped-def]
    """The stem of a word of so many letters, from the hashes after its last letter but one and its (at most) sixth."""
    return before if 4 <= letters <= STEM_LETTERS and last == 115 else six


@numba.njit(nogil=True, cache=True)
def votes(data, offsets, classes, folds, plain, table, postings, chunks, least, share, reach, span):  # type: ignore[no-untyped-def]
    """Places where many of a chunk's telling words stand together: (n, 5) row, chunk, first word, last word, share in thousandths.

    Every word of a row votes, with its weight, for the chunks that have it; a word counts once within `reach` words. A chunk's
    votes are forgotten after `reach` words without one, and halved every `span` words. It is reported while it has
    `least` and `share` of its weight. `table`: bits, bitmap bits, keys, values, bitmap of stems. `postings`: weights, offsets,
    chunks. Words count from 0 in each row.
    """
    bits, bitmap_bits, keys, values, bitmap = table
    weights, bounds, posts = postings
    capacity, count = 1 << 12, 0
    out = np.empty((capacity, 5), np.int32)
    gained, first = np.zeros(len(chunks), np.float32), np.zeros(len(chunks), np.int64)
    last, reported = np.full(len(chunks), -(1 << 40), np.int64), np.full(len(chunks), -1, np.int32)
    seen = np.full(len(weights), -(1 << 40), np.int64)
    base = np.int64(0)  # words before this row: places of different rows never meet
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        before, six, letters, ending = SEED, SEED, 0, np.uint32(0)
        place = base
        while i <= end:
            kind, code = 0, np.uint32(0)
            if i < end:
                c = plain[data[i]]
                while c != 0 and c != 255:
                    if letters < STEM_LETTERS:
                        before = six
                        six = (six ^ np.uint64(c)) * PRIME
                        ending = np.uint32(c)
                    letters += 1
                    i += 1
                    if i == end:
                        break
                    c = plain[data[i]]
            if i == end or data[i] < 0x80:
                i += 1
            else:
                code, i = decoded(data, i, end)
                kind = classes[code] if code < len(classes) else SINGLE
                if kind == WORD:
                    if letters < STEM_LETTERS:
                        before = six
                        six = (six ^ np.uint64(folds[code])) * PRIME
                        ending = np.uint32(folds[code])
                    letters += 1
                    continue
                if kind == MARK and letters:
                    continue
            for turn in range(2):
                if turn == 0 and letters:
                    stem = finished(_stem(letters, ending, before, six))
                elif turn == 1 and kind == SINGLE:
                    stem = finished((SEED ^ np.uint64(code)) * PRIME)
                else:
                    continue
                place += 1
                term = _known(stem, bits, bitmap_bits, keys, values, bitmap)
                if term < 0:
                    continue
                again = place - seen[term] <= reach
                seen[term] = place
                if again:
                    continue
                weight = weights[term]
                for p in range(bounds[term], bounds[term + 1]):
                    chunk = posts[p]
                    if place - last[chunk] > reach:
                        gained[chunk], first[chunk] = np.float32(0), place
                    elif place - first[chunk] > span:
                        gained[chunk] *= np.float32(0.5)
                        first[chunk] = place - span // 2
                    last[chunk] = place
                    gained[chunk] += weight
                    if gained[chunk] >= least and gained[chunk] >= share * chunks[chunk]:
                        k = reported[chunk]
                        value = np.int32(min(1000, 1000 * gained[chunk] / chunks[chunk]))
                        start = np.int32(max(0, first[chunk] - 1 - base))
                        if k >= 0 and out[k, 0] == row and start - out[k, 3] <= reach:
                            out[k, 3] = place - 1 - base
                            out[k, 4] = max(out[k, 4], value)
                            continue
                        if count == capacity:
                            capacity *= 2
                            larger = np.empty((capacity, 5), np.int32)
                            larger[:count] = out
                            out = larger
                        out[count, 0], out[count, 1], out[count, 2] = row, chunk, start
                        out[count, 3], out[count, 4] = place - 1 - base, value
                        reported[chunk] = count
                        count += 1
            before, six, letters = SEED, SEED, 0
        base = place + reach + 1
    return out[:count]
