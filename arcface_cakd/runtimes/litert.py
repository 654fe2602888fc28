"""``.tflite`` by LiteRT, formerly TensorFlow Lite."""

import numpy as np

from arcface_cakd.runtimes.base import ExportedModel
from arcface_cakd.silence import quiet


class LiteRtModel(ExportedModel):
    """A LiteRT file that takes one face (1, 3, 112, 112)."""

    RUNTIME, PACKAGE = "LiteRT", "ai_edge_litert"

    def _load(self, threads: int) -> None:
        with quiet():  # it says on stderr which kernels it takes
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(str(self.path), num_threads=threads or None)
            self._interpreter.allocate_tensors()
        (given,) = self._interpreter.get_input_details()
        (made,) = self._interpreter.get_output_details()
        self._given, self._made = given["index"], made["index"]

    def _embed(self, face: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._given, face[None])
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._made)[0]
