"""What each Unicode character is, as one table of bit flags that kernels index by code point.

The classes follow datatrove 0.10 (`utils/text.py`: its punctuation set and the Unicode property Sentence_Terminal) and
the affix rules of spaCy's English tokenizer, so that heuristics count the words that the published filters count.
"""

import unicodedata
from functools import lru_cache

import numpy as np

SPACE = 1  # str.isspace
ALPHA = 2  # str.isalpha
ALNUM = 4  # str.isalnum
DIGIT = 8  # 0-9
LOWER = 16  # a cased or caseless letter that is not upper case
UPPER = 32
PUNCTUATION = 64  # datatrove's set: a word of these alone is a symbol
TERMINAL = 128  # ends a sentence in some script
AFFIX = 256  # one-character prefix and suffix that splits off a word
QUOTE = 512
CURRENCY = 1024
UNICODE_PUNCTUATION = 2048  # category P*
LINE_BREAK = 4096  # str.splitlines
HYPHEN = 8192
ICON = 16384  # category So: an emoji or another symbol

SIZE = 0x20000  # both first planes; beyond them only ideographs occur in text, see `kernels.flag`

_PUNCTUATION = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
_AFFIX = "§%=—–…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
_HYPHENS = "-–—~"
_LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# The Unicode property Sentence_Terminal, as far as datatrove lists it: first code point and how many follow on.
_TERMINAL = (
    "21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 17d4-17d5 1803 1809 "
    "1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c 2e53-2e54 3002 "
    "a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f ff61 "
    "10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd 111de-111df 11238-11239 "
    "1123b-1123c 112a9 1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c "
    "11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5 16b37-16b38 16b44 16e98 1bc9f 1da88"
)


def _terminal() -> set[int]:
    found: set[int] = set()
    for part in _TERMINAL.split():
        first, _, last = part.partition("-")
        found.update(range(int(first, 16), int(last or first, 16) + 1))
    return found - {0x61E}


@lru_cache(1)
def table() -> np.ndarray:
    """(SIZE,) int32: the flags of each code point. Takes about 0.1 s, once a process."""
    flags = np.zeros(SIZE, dtype=np.int32)
    for point in range(SIZE):
        character = chr(point)
        category = unicodedata.category(character)
        value = (category[0] == "P") * UNICODE_PUNCTUATION | (category == "So") * ICON | character.isspace() * SPACE
        if character.isalnum():
            upper = category in ("Lu", "Lt")
            alpha = character.isalpha()
            value |= ALNUM | alpha * ALPHA | (alpha and upper) * UPPER | (alpha and not upper) * LOWER
        flags[point] = value
    controls = {*range(9), 11, 12, *range(13, 32), *range(127, 160)}
    for points, flag in (
        (set(map(ord, _PUNCTUATION)) | controls | _terminal(), PUNCTUATION),
        (_terminal(), TERMINAL),
        (set(map(ord, _AFFIX)), AFFIX),
        (set(map(ord, _QUOTES)), QUOTE),
        (set(map(ord, _CURRENCY)), CURRENCY),
        (set(map(ord, _HYPHENS)), HYPHEN),
        (set(map(ord, _LINE_BREAKS)), LINE_BREAK),
        (set(map(ord, "0123456789")), DIGIT),
    ):
        flags[sorted(points)] |= flag
    return flags
