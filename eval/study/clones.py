"""What the builders read from clones of public repositories: files of one commit."""

import subprocess
import tarfile
from collections.abc import Iterator


def from_git(repository: str, commit: str, path: str) -> bytes:
    """One file."""
    command = ["git", "-C", repository, "show", f"{commit}:{path}"]
    result = subprocess.run(command, capture_output=True)
    if result.returncode:
        raise SystemExit(f"{repository} has no {path} at {commit}: {result.stderr.decode()}")
    return result.stdout


def files_below(repository: str, commit: str, folder: str) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, as (path from there, content), in order of name."""
    # Of the folder's own tree: a clone that lacks a large file elsewhere will do.
    command = ["git", "-C", repository, "archive", f"{commit}:{folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as git:
        assert git.stdout is not None
        try:
            with tarfile.open(fileobj=git.stdout, mode="r|") as tar:  # git sorts by name
                for member in tar:
                    if member.isfile():
                        file = tar.extractfile(member)
                        assert file is not None
                        yield member.name, file.read()
        except tarfile.ReadError:  # git says why on its own
            pass
    if git.returncode:
        raise SystemExit(
            f"git archive of {repository} failed: is it a clone that has {commit} and, there, "
            f"{folder}?"
        )
