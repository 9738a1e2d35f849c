"""Makes the synchronous client of the asynchronous one: `make client-python`. A test sees to it that both agree."""

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parent.parent / "app" / "client"
SOURCE = CLIENT / "asynchronous.py"
MADE = CLIENT / "synchronous.py"
RUFF = Path(sys.executable).parent / "ruff"

WORDS = {
    r"async (?=def|with|for)": "",
    r"await ": "",
    r"\bAsync(?=Client|HTTPTransport|BaseTransport|Iterator)": "",
    r"__a(?=enter__|exit__)": "__",
    r"\baclose\b": "close",
    r"for `async with`": "for `with`",
}
DOCSTRING = '"""`Client`. Made of `asynchronous.py` by `make client-python`; change that file."""'


def made() -> str:
    """The text of the synchronous client."""
    text = SOURCE.read_text(encoding="utf-8")
    text = re.sub(r'\A""".*?"""', DOCSTRING, text, flags=re.DOTALL)
    for word, instead in WORDS.items():
        text = re.sub(word, instead, text)
    for command in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        done = subprocess.run(
            [RUFF, *command, "--stdin-filename", MADE, "-"], input=text, capture_output=True, text=True, check=True
        )
        text = done.stdout
    return text


if __name__ == "__main__":
    MADE.write_text(made(), encoding="utf-8")
