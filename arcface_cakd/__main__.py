"""``python -m arcface_cakd`` is the console command ``arcface-cakd``."""

from arcface_cakd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
