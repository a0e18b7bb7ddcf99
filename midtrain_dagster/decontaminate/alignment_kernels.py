"""The compiled loops over candidate regions: aligning a question with a window, and what both have in common.

Words are 64-bit hashes; `offsets` are prefix positions, so row i is `[offsets[i], offsets[i + 1])`.
"""

import numba  # noqa: TID253
import numpy as np

PLACED = np.float32(0.3)  # of a question's weight in order, before it is asked whether it keeps its places
SHIFTS = 40  # distances between a question and its copy that are tried
UP, LEFT, MATCH, FIRST = 1, 2, 3, 4  # where a cell of the alignment came from; FIRST: a match that begins a path
GAP = np.float32(0.12)  # of an average word's weight, for every word of either side that the alignment skips


@numba.njit(nogil=True, cache=True)
def _places(stems):  # type: ignore[no-untyped-def]
    """Where each stem stands, as chains of ascending places: (first place of each slot, next place), -1 at the end."""
    size = 16
    while size < 2 * len(stems):
        size *= 2
    heads, following = np.full(size, -1, np.int32), np.full(len(stems), -1, np.int32)
    for j in range(len(stems) - 1, -1, -1):
        slot = stems[j] & np.uint64(size - 1)
        following[j] = heads[slot]
        heads[slot] = j
    return heads, following


@numba.njit(nogil=True, cache=True, inline="always")
def _match(stem, j, stems, following):  # type: ignore[no-untyped-def]
    """The first place of a chain from j on that has this stem; past the end where there is none."""
    while j >= 0 and stems[j] != stem:
        j = following[j]
    return j if j >= 0 else len(stems)


@numba.njit(nogil=True, cache=True)
def align(q_words, q_stems, q_weights, d_words, d_stems):  # type: ignore[no-untyped-def]
    """Weighted local alignment of a question with a window: equal stems gain the word's weight, skipped words cost a little.

    Returns (first word, end word, common words in order, their weight, longest run of equal words, first question word,
    end question word) of the best path. Of the table of len(q) rows and len(d) columns, only cells that are not zero are visited
    (`alive`, a row at a time): those below or right of one that is not, and those whose stems are equal.
    """
    m, n = len(q_words), len(d_words)
    gap = GAP * (q_weights.mean() if m else np.float32(0))
    heads, following = _places(d_stems)
    score, run, came = np.zeros(n + 2, np.float32), np.zeros(n + 2, np.int32), np.empty((m + 1, n + 2), np.uint8)
    alive, fresh = np.full(n + 2, n + 1, np.int32), np.empty(n + 2, np.int32)
    best, longest, bottom, right = np.float32(0), 0, 0, 0
    for i in range(m):
        stem, weight, back = q_stems[i], q_weights[i], came[i]
        hit = _match(stem, heads[stem & np.uint64(len(heads) - 1)], d_stems, following) + 1
        done, at, before, near = 0, 0, -1, np.float32(0)  # near: the score just left, in this row
        above, above_run = np.float32(0), 0  # of the row above at `before`, which this row has overwritten
        while True:
            j = min(hit, alive[at])
            if near > gap:
                j = min(j, before + 1)
            if j > n:
                break
            if j != before + 1:
                near, above, above_run = np.float32(0), np.float32(0), 0
            diagonal, diagonal_run = above, above_run
            above, above_run = score[j], run[j]
            at += alive[at] == j
            s, origin = max(above, near) - gap, np.uint8(UP if above >= near else LEFT)
            r = 0
            if hit == j:
                r = diagonal_run + 1 if q_words[i] == d_words[j - 1] else 0
                longest = max(longest, r)
                if diagonal + weight > max(s, np.float32(0)):
                    s, origin = diagonal + weight, np.uint8(MATCH if diagonal > 0 else FIRST)
                    if s > best:
                        best, bottom, right = s, i, j
                hit = _match(stem, following[j - 1], d_stems, following) + 1
            s = max(s, np.float32(0))
            score[j], run[j], back[j] = s, r, origin
            before, near = j, s
            if s > 0 or r > 0:
                fresh[done] = j
                done += 1
        fresh[done] = n + 1
        alive, fresh = fresh, alive
    return *_path(came, q_weights, bottom, right, best), longest


@numba.njit(nogil=True, cache=True)
def _path(came, weights, i, j, best):  # type: ignore[no-untyped-def]
    """From the best cell back: first and end word, common words, their weight, first and end question word."""
    if best <= 0:
        return 0, 0, 0, np.float32(0), 0, 0
    rows, count, end, bottom = np.empty(i + 1, np.int32), 0, j, i + 1
    while True:
        origin = came[i, j]
        if origin == LEFT:
            j -= 1
            continue
        if origin == UP:
            i -= 1
            continue
        rows[count] = i
        count += 1
        if origin == FIRST:
            break
        i, j = i - 1, j - 1
    mass = np.float32(0)
    for k in range(count - 1, -1, -1):
        mass += weights[rows[k]]
    return j - 1, end, count, mass, i, bottom


@numba.njit(nogil=True, cache=True)
def coverage(q_stems, q_weights, d_stems):  # type: ignore[no-untyped-def]
    """Share of the weight of a question's distinct words that a window holds; 0 for no words. O(len(q) · len(d))."""
    total, found = np.float32(0), np.float32(0)
    for i in range(len(q_stems)):
        again = False
        for k in range(i):
            if q_stems[k] == q_stems[i]:
                again = True
                break
        if again:
            continue
        total += q_weights[i]
        for j in range(len(d_stems)):
            if d_stems[j] == q_stems[i]:
                found += q_weights[i]
                break
    return found / total if total > 0 else np.float32(0)


@numba.njit(nogil=True, cache=True)
def in_place(q_stems, q_weights, d_stems, low, high):  # type: ignore[no-untyped-def]
    """Words of a question that stand in a window at one distance from each other, whatever stands between them.

    Where words were exchanged one for one the others keep their places; another text that shares as many words has them elsewhere.
    Tries every shift in [low, high), a word either way allowed. Returns (words, their weight, longest run) of the best shift.
    """
    best, best_mass, best_run = 0, np.float32(0), 0
    for shift in range(low, high):
        count, mass, run, longest = 0, np.float32(0), 0, 0
        for i in range(len(q_stems)):
            hit = False
            for j in range(max(0, i + shift - 1), min(len(d_stems), i + shift + 2)):
                if d_stems[j] == q_stems[i]:
                    hit = True
                    break
            run = run + 1 if hit else 0
            longest = max(longest, run)
            if hit:
                count += 1
                mass += q_weights[i]
        if mass > best_mass:
            best, best_mass, best_run = count, mass, longest
    return best, best_mass, best_run


@numba.njit(nogil=True, cache=True)
def _missing(wanted, window):  # type: ignore[no-untyped-def]
    """How many of `wanted` are not in `window`."""
    count = 0
    for i in range(len(wanted)):
        absent = True
        for j in range(len(window)):
            if window[j] == wanted[i]:
                absent = False
                break
        count += absent
    return count


@numba.njit(nogil=True, cache=True)
def measure_regions(regions, least, limit, near, document, unit, slots, parts):  # type: ignore[no-untyped-def]
    """Evidence for every region, a row each; zeros for one that holds less than `least` of its unit's weight.

    `regions`: (n, 4) row, unit, first word, end word. `document`: words, stems, offsets. `unit`: words, stems, weights,
    offsets, question, first word of the tail and how far before its place it may stand. `slots`: words and offsets of numbers, of names. `parts`: stems, weights, offsets of answers, options,
    passages. Columns: first word, end word, run, common, order, overlap, answer, options, passage, span, numbers changed,
    names changed, frame, tail, words in place, their weight, their longest run.
    """
    d_words, d_stems, d_offsets = document
    u_words, u_stems, u_weights, u_offsets, question_of, tail_of, back_of = unit
    number_words, number_offsets, name_words, name_offsets = slots
    out = np.zeros((len(regions), 17), np.float64)
    for r in range(len(regions)):
        row, u, first = regions[r, 0], regions[r, 1], regions[r, 2]
        end = min(regions[r, 3], first + 4 * limit)
        begin, stop = u_offsets[u], min(u_offsets[u + 1], u_offsets[u] + limit)
        q_words, q_stems, weights = u_words[begin:stop], u_stems[begin:stop], u_weights[begin:stop]
        if least > 0 and coverage(q_stems, weights, d_stems[first:end]) < least:
            continue
        left, right, common, mass, top, bottom, run = align(q_words, q_stems, weights, d_words[first:end], d_stems[first:end])
        slack = 3 + (right - left) // 10
        low, high = max(first, first + left - slack), min(end, first + right + slack)
        total = weights.sum()
        numbers = number_words[number_offsets[u] : number_offsets[u + 1]]
        names = name_words[name_offsets[u] : name_offsets[u + 1]]
        filled = np.float32(0)
        for i in range(len(q_words)):
            slot = _missing(q_words[i : i + 1], numbers) == 0 or _missing(q_words[i : i + 1], names) == 0
            if slot and _missing(q_words[i : i + 1], d_words[low:high]) == 1:
                filled += weights[i]
        out[r, 0], out[r, 1], out[r, 2], out[r, 3] = first + left, first + right, run, common
        out[r, 4] = mass / total if total > 0 else 0.0
        out[r, 5] = coverage(q_stems, weights, d_stems[low:high])
        a, b = d_offsets[row], d_offsets[row + 1]
        beside = d_stems[max(a, first + left - near) : min(b, first + right + near)]
        after = d_stems[max(a, first + left - near) : min(b, first + right + max(near, 2 * len(q_words)))]
        for k in range(3):
            stems, part_weights, offsets = parts[k]
            x, y = offsets[question_of[u]], min(offsets[question_of[u] + 1], offsets[question_of[u]] + limit)
            out[r, 6 + k] = coverage(stems[x:y], part_weights[x:y], after if k == 1 else beside) if y > x else np.nan
        out[r, 9] = right - left
        out[r, 10] = _missing(numbers, d_words[low:high])
        out[r, 11] = _missing(names, d_words[low:high])
        out[r, 12] = min(1.0, mass / (total - filled)) if total > filled else 0.0
        tail = slice(tail_of[u], u_offsets[u + 1])
        aligned = max(
            0, u_offsets[u] + bottom - tail_of[u]
        )  # words of the tail: only so far before the path's end can it stand
        asks = max(a, first + right - aligned - aligned // 4 - back_of[u])
        out[r, 13] = coverage(u_stems[tail], u_weights[tail], d_stems[asks : min(b, high + near)])
        if mass >= PLACED * total:
            one, two = min(left - top, right - bottom), max(left - top, right - bottom)
            words, weight, longest = in_place(q_stems, weights, d_stems[first:end], one - 2, min(two, one + SHIFTS) + 3)
            out[r, 14], out[r, 15], out[r, 16] = words, weight / total if total > 0 else 0.0, longest
    return out
