"""Runs the host's train_v2.py and writes down what it computes, for tests.

Started by ``arcface_torch_on_cpu.py`` as SCRIPT=<this file>; what it does is in the environment:

RECORD=folder        ``rank<n>.pt`` there gets each step's ``losses``, ``margins``, ``terms`` and
                     ``labels``, the ``first`` step's initial ``state``, class ``centers``,
                     ``images`` and ``labels``, and the ``random`` state that its terms draw
                     from, the name of the ``dataset``'s class, and the
                     ``teacher`` as it is in the end
STOP_BEFORE_EPOCH=n  leave where epoch n would begin, as if the job's time were up
HIDE=name            a package that shall not be found, as if it were not installed
"""

import os
import runpy
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import torch


class _Hidden(MetaPathFinder):
    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def _stop_before(epoch: int) -> None:
    sampler = torch.utils.data.DistributedSampler
    set_epoch = sampler.set_epoch

    def stopping(self, now):
        if now == epoch:
            raise SystemExit(0)
        set_epoch(self, now)

    sampler.set_epoch = stopping


def _record(record: dict) -> None:
    import partial_fc_v2
    from utils.utils_logging import AverageMeter

    update, margin = AverageMeter.update, partial_fc_v2.PartialFC_V2.forward

    def recorded_update(self, value, n=1):
        record["losses"].append(value)
        update(self, value, n)

    def recorded_margin(self, embeddings, labels):
        if self.training and not record["losses"]:
            first = {"centers": self.weight, "embeddings": embeddings, "labels": labels}
            record["first"].update({k: v.detach().clone() for k, v in first.items()})
        record["labels"].append(labels.tolist())
        loss = margin(self, embeddings, labels)
        record["margins"].append(loss.item())
        return loss

    loader = torch.utils.data.DataLoader
    batches = loader.__iter__

    def recorded_batches(self):
        record["dataset"] = type(self.dataset).__name__
        return batches(self)

    loader.__iter__ = recorded_batches
    AverageMeter.update = recorded_update
    partial_fc_v2.PartialFC_V2.forward = recorded_margin
    if "HIDE" in os.environ:
        return

    from arcface_cakd.distiller import Distiller

    forward, terms = Distiller.forward, Distiller.terms

    def recorded_forward(self, images, *given):
        record["teacher"] = self.teacher.state_dict()
        if self.training and not record["losses"]:
            state = {name: value.clone() for name, value in self.state_dict().items()}
            record["first"].update(state=state, images=images.clone())
        return forward(self, images, *given)

    def recorded_terms(self, *args, **kwargs):
        record["first"].setdefault("random", torch.get_rng_state())
        found = terms(self, *args, **kwargs)
        record["terms"].append({name: term.item() for name, term in found.items()})
        return found

    Distiller.forward, Distiller.terms = recorded_forward, recorded_terms


def main() -> None:
    if "HIDE" in os.environ:
        sys.meta_path.insert(0, _Hidden(os.environ["HIDE"]))
    if "STOP_BEFORE_EPOCH" in os.environ:
        _stop_before(int(os.environ["STOP_BEFORE_EPOCH"]))
    record = {"losses": [], "margins": [], "terms": [], "labels": [], "first": {}}
    _record(record)
    script = Path(os.environ["ARCFACE_TORCH"], "train_v2.py")
    sys.argv[0] = str(script)
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        rank = os.environ.get("RANK", "0")
        torch.save(record, Path(os.environ["RECORD"], f"rank{rank}.pt"))


if __name__ == "__main__":
    main()
