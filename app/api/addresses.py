"""Addresses whose segments may have slashes in them: `a%2Fb` is one segment."""

from urllib.parse import unquote_to_bytes


def routed_path(raw_path: bytes) -> str:
    """The path that routes are matched against: its segments decoded, but for slashes within them.

    Raises UnicodeDecodeError for what is not UTF-8.

    >>> routed_path(b"/v1/users/a%2Fb%20c"), decoded("a%2Fb c")
    ('/v1/users/a%2Fb c', 'a/b c')
    """
    if b"%" not in raw_path:
        return raw_path.decode()
    segments = (unquote_to_bytes(segment).decode() for segment in raw_path.split(b"/"))
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)


def decoded(segment: str) -> str:
    """A segment of a `routed_path` as the caller meant it."""
    return segment.replace("%2F", "/").replace("%25", "%")
