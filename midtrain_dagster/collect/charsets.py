"""From bytes to text: the character set that fits, that is declared, or that is detected."""

import codecs

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Browsers read these declarations as Windows-1252 (WHATWG Encoding Standard, section 4.2).
LATIN = {"iso-8859-1", "iso8859-1", "latin1", "latin-1", "ascii", "us-ascii"}


def decode(data: bytes, declared: str | None = None, detect: bool = False) -> tuple[str, str]:
    """Text and the character set that it was read in.

    A byte order mark decides; then UTF-8 if all bytes are valid in it (other text practically never is); then what is declared;
    then, if asked, what charset-normalizer finds in the first 64 KiB. Raises UnicodeError where nothing fits.
    """
    for mark, charset in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(charset), charset.removesuffix("-sig")
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        if (declared or "").lower().replace("_", "-") in ("utf-8", "utf8"):
            raise
        problem = error
    for candidate in (declared, _detected(data) if detect else None):
        name = "windows-1252" if (candidate or "").lower() in LATIN else candidate
        try:
            if name and codecs.lookup(name)._is_text_encoding:
                return data.decode(name), codecs.lookup(name).name
        except (LookupError, UnicodeDecodeError, ValueError):
            continue
    raise problem


def _detected(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(data[: 64 << 10]).best()
    return best.encoding if best else None
