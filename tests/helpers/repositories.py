"""Repositories as the study's builders read them."""

import subprocess


def committed(root):
    """Everything below a folder as a repository of one commit: its path, and the commit."""

    def git(*words):
        own = ["-c", "user.name=t", "-c", "user.email=t@t"]
        command = ["git", "-C", str(root), *own, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "images")
    return str(root), git("rev-parse", "HEAD")
