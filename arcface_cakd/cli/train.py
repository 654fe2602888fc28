"""``arcface-cakd train``: run the built-in loop."""

import argparse
import sys

from arcface_cakd.cli.figures import add_json, write_json
from arcface_cakd.launcher import tell_launcher

HELP = "Train a model, or distil one where the config has a cakd entry."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit codes: 0 done, 1 a mistake, 2 wrong usage; stopped by a signal, with a checkpoint to "
        "go on from: 143 (SIGTERM), 130 (SIGINT), 138 (SIGUSR1), 129 (SIGHUP).\n\n"
        "examples:\n"
        "  arcface-cakd train recipes/demo/demo_student.py --set rec=faces num_epoch=5\n"
        "  torchrun --nproc-per-node 2 -m arcface_cakd train ms1mv3_mbf_cakd_swin_s\n"
        "  arcface-cakd train ms1mv3_mbf_cakd_swin_s --set resume=True"
    )
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of a recipe")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="override entries of the config; dots reach into them: cakd.urfm.dim=128",
    )
    parser.add_argument(
        "--force", action="store_true", help="write to an output that holds another run"
    )
    add_json(parser, "write the run's figures to a file")


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.config import load_config
    from arcface_cakd.distributed import is_main, process_group
    from arcface_cakd.engine import RunStoppedError, train
    from arcface_cakd.resources import find_recipe

    config = load_config(find_recipe(args.config), args.set)
    config.force = config.force or args.force
    with process_group():
        main = is_main()
        try:
            result = train(config)
        except RunStoppedError as stopped:
            message = f"arcface-cakd train: {stopped}"
            if main:
                print(message, file=sys.stderr)
            tell_launcher(message)
            return stopped.exit_code
    if not main:
        return 0
    figures = {
        "output": str(result.output),
        "global_step": result.global_step,
        "accuracy": result.metrics,
    }
    write_json(args.json, figures)
    for name, accuracy in result.metrics.items():
        print(f"{name}: accuracy {accuracy:.4f}")
    print(f"{result.output / 'model.pt'}: step {result.global_step}")
    return 0
