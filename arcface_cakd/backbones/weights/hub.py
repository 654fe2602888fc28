"""Weights on the Hugging Face Hub: ``hf:<owner>/<name>``, and the licence that their card names."""

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from arcface_cakd.backbones.weights.errors import WeightsError

logger = logging.getLogger("arcface_cakd")

HUB = "hf:"
# In the order in which they are looked for where a source names no file.
_WEIGHTS = ("model.safetensors", "pretrained_model/model.pt", "model.pt", "pytorch_model.bin")
_CARD = "README.md"
_SOURCE = re.compile(r"([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@(.+))?")
_FORM = "hf:<owner>/<name>, hf:<owner>/<name>/<file>, or either with @<revision>"
_TIMEOUT = 10.0  # seconds until the Hub counts as out of reach


@dataclass(frozen=True)
class _Repository:
    """A model on the Hub at one revision, or what the cache holds of it.

    Attributes:
        files: that it has; None where the Hub is out of reach.
        unreachable: why it is.
    """

    name: str
    revision: str | None
    files: frozenset[str] | None = None
    unreachable: str = ""

    def file(self, name: str) -> Path | None:
        """The local copy of a file; None where it has none, or the cache lacks it."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import LocalEntryNotFoundError

        if self.files is not None:
            if name not in self.files:
                return None
            return Path(hf_hub_download(self.name, name, revision=self.revision))
        try:
            return Path(
                hf_hub_download(self.name, name, revision=self.revision, local_files_only=True)
            )
        except LocalEntryNotFoundError:
            return None


def from_hub(source: str, beside: tuple[str, ...] = ()) -> Path:
    """The local copy of a file of weights on the Hub, downloaded where there is none.

    By huggingface_hub: its cache, its environment variables (``HF_HOME``, ``HF_TOKEN``,
    ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``). Where the Hub is out of reach, the cache's copy. One line
    of the log names the licence of the model's card, or says that it names none.

    Args:
        source: ``hf:<owner>/<name>``, with ``/<file>`` for a file of the repository and
            ``@<revision>`` for a branch, tag or commit. Without a file it is the first of
            ``model.safetensors``, ``pretrained_model/model.pt``, ``model.pt`` and
            ``pytorch_model.bin`` that is there.
        beside: names of files that are brought along where they are there, from the folder of the
            weights and from the one above it.

    Raises:
        WeightsError: no such source, repository, revision or file, no access, or no connection and
            no copy in the cache.
    """
    match = _SOURCE.fullmatch(source.removeprefix(HUB))
    if match is None:
        raise WeightsError(f"weights {source!r} name no model on the Hub: write {_FORM}")
    repo, file, revision = match.groups()
    with _explained(source, repo, revision):
        repository = _look_up(repo, revision)
        for name in _WEIGHTS if file is None else (file,):
            path = repository.file(name)
            if path is not None:
                break
        else:
            raise _missing(source, repository, file)
        folder = Path(name).parent
        for place in dict.fromkeys((folder, folder.parent)):
            for other in beside:
                repository.file((place / other).as_posix())
        licence = _licence(repository)
    kept = "" if repository.files is not None else "; the cache's copy, as the Hub is out of reach"
    logger.info("weights %s: %s%s", source, licence, kept)
    return path


def _look_up(repo: str, revision: str | None) -> _Repository:
    """What files a repository has, in one request."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:  # of the connection, of its kinds in httpx and requests
        return _Repository(repo, revision, unreachable=_short(error))
    return _Repository(repo, revision, frozenset(s.rfilename for s in info.siblings or ()))


@contextlib.contextmanager
def _explained(source: str, repo: str, revision: str | None) -> Iterator[None]:
    """What huggingface_hub raises as one line that says what to do."""
    from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except WeightsError:
        raise
    except GatedRepoError as error:
        raise WeightsError(
            f"weights {source}: their owner grants access by request: ask for it on "
            f"https://huggingface.co/{repo}, then run `hf auth login`, or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"weights {source}: the Hub has no public model {repo!r}: check owner and name, or "
            "run `hf auth login` where it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(
            f"weights {source}: {repo!r} has no revision {revision!r}: give a branch, tag or "
            "commit of it"
        ) from error
    except Exception as error:  # of the connection, the disk, or an odd name
        raise WeightsError(
            f"weights {source} cannot be had from the Hub ({_short(error)}): download the file, "
            "and give its path"
        ) from error


def _missing(source: str, repository: _Repository, file: str | None) -> WeightsError:
    repo = repository.name
    if repository.files is None:
        return WeightsError(
            f"weights {source}: the Hub is out of reach ({repository.unreachable}), and the cache "
            f"has no copy: run `hf download {repo}` where there is a connection, and give the path "
            "of the file"
        )
    wanted = file or " or ".join(_WEIGHTS)
    endings = (".safetensors", ".pt", ".pth", ".bin")
    there = sorted(name for name in repository.files if name.endswith(endings))
    advice = f"name one of its files: hf:{repo}/{there[0]}" if there else "take another model"
    others = f", but {', '.join(there[:5])}{', ...' * (len(there) > 5)}" if there else ""
    return WeightsError(f"weights {source}: that model has no {wanted}{others}: {advice}")


def _licence(repository: _Repository) -> str:
    from huggingface_hub import metadata_load

    card = repository.file(_CARD)
    if card is None:
        return "without a model card, and so without a named licence"
    try:
        data = metadata_load(card) or {}
    except Exception:  # a card's head need not be YAML
        data = {}
    licence = data.get("license")
    if not licence:
        return "its model card names no licence"
    named = ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)
    if data.get("license_name"):
        named += f" ({data['license_name']})"
    return f"licence {named}, by its model card"


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
