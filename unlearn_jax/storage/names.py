"""Names of files from words of the user: different words never share one."""

import hashlib
import urllib.parse

_LONGEST = 150


def file_name(text: str) -> str:
    """A name for a file or folder, readable, injective, and inside its folder.

    Letters, digits and ``_-~ +=,.`` stay, everything else (a leading dot too) is
    percent-encoded; what would be longer than 150 characters is cut and ends in the
    SHA-256 of the whole.

    Args:
        text: Any text but the empty one.

    Raises:
        ValueError: it is empty.
    """
    if not text:
        raise ValueError("a name for a file needs at least one character")
    safe = urllib.parse.quote(text, safe=" +=,", errors="surrogatepass")
    if safe.startswith("."):  # hidden files are ours, "." and ".." the system's
        safe = f"%2E{safe[1:]}"
    if len(safe) > _LONGEST:
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        safe = f"{safe[: _LONGEST - 66]}%%{digest}"  # "%%" is in no other name
    return safe
