"""The verification protocol on a model: 10-fold accuracy, AUC, EER, TAR at FAR.

    python eval/verification.py MODEL.pt --network mbf --data faces/ --json results.json

The same as ``arcface-cakd evaluate``; it stands here beside the other protocols, so that every
figure has its script. The JSON file holds the raw results.
"""

import sys

from arcface_cakd.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
