"""``.ncnn.param`` and ``.ncnn.bin`` by ncnn."""

import re
from pathlib import Path

import numpy as np

from arcface_cakd.runtimes.base import ExportedModel, RuntimeProblem
from arcface_cakd.silence import quiet


class NcnnModel(ExportedModel):
    """A network of ncnn that takes one face (3, 112, 112).

    Arithmetic is float32, also where weights are stored in float16: phones may do otherwise.
    """

    RUNTIME, PACKAGE = "ncnn", "ncnn"
    BESIDE = (".bin",)
    BEGINNING = re.compile(rb"7767517\s")

    def _load(self, threads: int) -> None:
        import ncnn

        self._net = ncnn.Net()
        options = self._net.opt
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = options.use_vulkan_compute = False
        if threads:
            options.num_threads = threads
        if self.begins(self.path) and (lacking := _lacking(self.path)):
            raise RuntimeProblem(
                f"model {self.path} has layers that ncnn does not ({', '.join(lacking)}), as "
                "Transformers do: take an .onnx or .xml file of the same weights"
            )
        with quiet():  # it says on stderr what it does not load
            failed = self._net.load_param(str(self.path)) or self._net.load_model(
                str(self.path.with_suffix(".bin"))
            )
        if failed:
            raise RuntimeProblem(f"model {self.path} is not a pair of files that ncnn loads")
        (self._given,), (self._made,) = self._net.input_names(), self._net.output_names()

    def _embed(self, face: np.ndarray) -> np.ndarray:
        import ncnn

        run = self._net.create_extractor()
        run.input(self._given, ncnn.Mat(face))
        failed, embedding = run.extract(self._made)
        if failed:
            raise RuntimeProblem(f"model {self.path} does not run: ncnn says {failed}")
        return np.array(embedding).reshape(-1)


def _lacking(param: Path) -> list[str]:
    """Kinds of layers in a file that the ncnn here does not have; pnnx leaves some of torch's."""
    import ncnn

    lines = param.read_text(encoding="utf-8", errors="replace").splitlines()
    kinds = {words[0] for words in map(str.split, lines[2:]) if words}
    return sorted(kind for kind in kinds if ncnn.layer_to_index(kind) < 0)
