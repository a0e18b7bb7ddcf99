"""The compiled loops over short passages: which questions share most of their words, and exactly what is shared."""

import numba  # noqa: TID253
import numpy as np


@numba.njit(nogil=True, cache=True)
def digits_only(data, starts, ends, out):  # type: ignore[no-untyped-def]
    """Whether each word is a number in ASCII digits."""
    for i in range(len(starts)):
        number = ends[i] > starts[i]
        for j in range(starts[i], ends[i]):
            if data[j] < 48 or data[j] > 57:
                number = False
                break
        out[i] = number


@numba.njit(nogil=True, cache=True)
def distinct(stems, offsets, out, out_offsets, first):  # type: ignore[no-untyped-def]
    """Each row's distinct stems in ascending order; `first` is where each stood. Returns the count."""
    count = 0
    for row in range(len(offsets) - 1):
        out_offsets[row] = count
        begin, end = offsets[row], offsets[row + 1]
        order = np.argsort(stems[begin:end])
        for k in range(end - begin):
            place = begin + order[k]
            if k and stems[place] == out[count - 1]:
                first[count - 1] = min(first[count - 1], place)
                continue
            out[count], first[count] = stems[place], place
            count += 1
    out_offsets[len(offsets) - 1] = count
    return count


@numba.njit(nogil=True, cache=True)
def most_alike(terms, offsets, weights, post_offsets, posts, unit_weight, least, top):  # type: ignore[no-untyped-def]
    """For each row the `top` units with the largest shared weight over √(unit's weight), -1 where there are fewer.

    `terms` are each row's distinct vocabulary numbers (-1: none). A unit must share `least`. Ties go to the lower unit.
    """
    rows = len(offsets) - 1
    out = np.full((rows, top), -1, np.int32)
    gained = np.zeros(len(unit_weight), np.float32)
    touched = np.empty(len(unit_weight), np.int32)
    best = np.empty(top, np.float32)
    for row in range(rows):
        n, kept = 0, 0
        for i in range(offsets[row], offsets[row + 1]):
            t = terms[i]
            if t < 0:
                continue
            for p in range(post_offsets[t], post_offsets[t + 1]):
                if gained[posts[p]] == 0:
                    touched[n] = posts[p]
                    n += 1
                gained[posts[p]] += weights[t]
        for k in range(n):
            unit = touched[k]
            shared = gained[unit]
            gained[unit] = 0
            if shared < least:
                continue
            value = shared / np.sqrt(unit_weight[unit])
            at = kept
            while at and (value > best[at - 1] or (value == best[at - 1] and unit < out[row, at - 1])):
                at -= 1
            if at == top:
                continue
            kept = min(top, kept + 1)
            for j in range(kept - 1, at, -1):
                best[j], out[row, j] = best[j - 1], out[row, j - 1]
            best[at], out[row, at] = value, unit
    return out


@numba.njit(nogil=True, cache=True)
def shared_words(pairs, one, two):  # type: ignore[no-untyped-def]
    """(n, 6) for each pair (row of `one`, row of `two`): weight of one, of two, of what they share; then how many numbers each.

    A side is distinct ascending stems, weights, number flags, offsets. Columns 0-2 weigh every word; columns 3-5 count distinct
    numbers, for a small number that is everywhere tells two problems apart as well as a rare one.
    """
    a_stems, a_weights, a_numbers, a_offsets = one
    b_stems, b_weights, b_numbers, b_offsets = two
    out = np.zeros((len(pairs), 6), np.float64)
    for r in range(len(pairs)):
        i, i_end = a_offsets[pairs[r, 0]], a_offsets[pairs[r, 0] + 1]
        j, j_end = b_offsets[pairs[r, 1]], b_offsets[pairs[r, 1] + 1]
        for k in range(i, i_end):
            out[r, 0] += a_weights[k]
            out[r, 3] += a_numbers[k]
        for k in range(j, j_end):
            out[r, 1] += b_weights[k]
            out[r, 4] += b_numbers[k]
        while i < i_end and j < j_end:
            if a_stems[i] < b_stems[j]:
                i += 1
            elif a_stems[i] > b_stems[j]:
                j += 1
            else:
                out[r, 2] += b_weights[j]
                out[r, 5] += b_numbers[j]
                i += 1
                j += 1
    return out


@numba.njit(nogil=True, cache=True)
def sentence(data, starts, ends, place, low, high, slack):  # type: ignore[no-untyped-def]
    """The word boundary nearest to `place`, within `slack` words, where a line or sentence ends; a row's edge when near; else `place`."""
    if place - low <= slack // 2:
        return low
    if high - place <= slack // 2:
        return high
    best, distance = place, slack + 1
    for word in range(max(low + 1, place - slack), min(high, place + slack)):
        if abs(word - place) >= distance:
            continue
        stop = False
        for i in range(ends[word - 1], starts[word]):
            c = data[i]
            if c == 10 or ((c == 46 or c == 63 or c == 33) and i + 1 < starts[word] and data[i + 1] <= 32):
                stop = True
                break
        if stop:
            best, distance = word, abs(word - place)
    return best
