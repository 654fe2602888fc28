import subprocess
import sys

HEAVY = {"timm", "torchvision", "PIL", "skimage", "insightface", "onnx", "matplotlib", "cv2"}
ROOMS = {"alignment", "config", "distributed", "errors", "features", "landmarks"}
ROOMS |= {"losses", "partial_fc", "precision", "registry", "resources", "tensor_files", "arrays"}


def test_losses_and_alignment_import_torch_alone():
    script = "import sys, arcface_cakd.losses; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    modules = said.stdout.split()
    assert "torch" in modules
    assert not HEAVY & set(modules)
    assert {m.split(".")[1] for m in modules if m.startswith("arcface_cakd.")} <= ROOMS
