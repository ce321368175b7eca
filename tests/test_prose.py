"""Plain English: phrases that a native reader stumbles over are counted, so that none becomes more frequent.

    python tests/test_prose.py          # how often each occurs, and in which files

Read are the README and, in the package, docstrings, other strings and comments. A ceiling is the number of occurrences
that were left when it was written: after cleaning up, lower it; none may be raised.
"""

import collections
import functools
import io
import re
import tokenize
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]

# A phrase, as a regular expression that begins at a word; what to write in its place; and how many may be left.
PHRASES = [
    (r"(?:is|are|was|were|be) no\b(?! (?:longer|more than|less|earlier|later))", "is not a …", 89),
    (r"no more (?:is|are)\b|no more[.;:,]", "no longer; nothing else", 12),
    (r"(?:an?|one|each|no|single|many|few|first|next|last|failed|best|the) looks?\b(?! (?:like|for))", "poll", 34),
    (r"looks? (?:a|per|until|again|once|twice)\b", "polls", 4),
    (r"look(?:s|ed)? through\b", "retried; ignored", 1),
    (r"so many\b", "the number itself", 31),
    (r"(?:that|so) long\b", "the time itself", 4),
    (r"c[ao]me of\b", "result", 16),
    (r"stand how\b|how (?:it|they|things) stands?\b", "state", 8),
    (r"stands? (?:there|for itself|before|behind|above)\b", "is", 4),
    (r"anew\b", "again", 13),
    (r"in all(?=[.,;:)]| and\b)", "in total", 7),
    (r"as far as\b", "if; up to", 16),
    (r"come what may\b", "always", 3),
    (r"all is (?:said|well)\b|all the same\b", "anyway", 14),
    (r"lately\b|in the midst of\b", "recently; during", 3),
    (r"bears? (?=\d|it\b|an?\b|so\b|requests?\b|looks?\b)|\w+ bears\b", "allows; tolerates", 8),
    (r"wants (?:its|an?|the)\b", "requires", 2),
    (r"but for\b", "except", 11),
    (r"g(?:o|oes|oing) on\b", "continue", 46),
    (r"it is (?:told|asked) to\b|was asked for\b", "the request; who asks", 15),
    (r"told of\b", "informed of; called with", 12),
]


@functools.cache
def prose() -> dict[str, list[str]]:
    """The prose of each file: the README without its code; the strings and comments of each module."""
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    found = {"README.md": [re.sub(r"^```.*?^```$", "", readme, flags=re.DOTALL | re.MULTILINE)]}
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", None)}  # the last since 3.12
    for path in sorted((HOME / "piapi_async").rglob("*.py")):
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        found[str(path.relative_to(HOME))] = [token.string for token in tokens if token.type in kinds]
    return {name: [" ".join(text.replace("#", " ").split()) for text in texts] for name, texts in found.items()}


def counted(phrase: str) -> collections.Counter[str]:
    """How often a phrase occurs in each file."""
    pattern = re.compile(rf"\b(?:{phrase})", re.IGNORECASE)
    counts = {name: sum(len(pattern.findall(text)) for text in texts) for name, texts in prose().items()}
    return +collections.Counter(counts)


@pytest.mark.parametrize(("phrase", "better", "ceiling"), PHRASES, ids=[phrase for phrase, *_ in PHRASES])
def test_phrase(phrase: str, better: str, ceiling: int) -> None:
    """A phrase that was cleaned up does not come back."""
    files = counted(phrase)
    assert files.total() <= ceiling, f"write {better!r} instead; found in {dict(files)}"


def test_the_texts_are_read() -> None:
    """The README, docstrings, messages and comments are among what is read, code and its names are not."""
    texts = "\n".join(text for texts in prose().values() for text in texts)
    assert "pay once" in texts
    assert "Asyncio SDK" in texts
    assert "PEP 562" in texts
    assert "import attrs" not in texts


if __name__ == "__main__":
    for phrase, better, ceiling in PHRASES:
        files = counted(phrase)
        print(f"{files.total():4} of {ceiling:<4} {phrase}  (write: {better})")  # noqa: T201 - its output
        for name, count in files.most_common():
            print(f"{count:12}  {name}")  # noqa: T201
