"""arcface_cakd's functions for train_v2.py; plain training goes on where it is not installed."""

try:
    from arcface_cakd.arcface_torch import (
        check_checkpoint,
        check_config,
        check_teacher,
        clip_grad_norm,
        comm_hook,
        distill,
        faster_items,
        get_model,
        labels,
        log_line,
        log_to,
        margin,
        observe,
        parameter_groups,
        resume,
        run_state,
        save,
        save_model,
        start_centers,
        student,
        total_loss,
    )
except ModuleNotFoundError as error:
    if error.name != "arcface_cakd":
        raise
    from torch import save
    from torch.nn.utils import clip_grad_norm_

    def check_config(cfg):
        pass

    def get_model(name, **kwargs):
        raise ValueError(f"unknown network {name!r}: install arcface_cakd if it is one of its own")

    def distill(backbone, cfg):
        for key in ("cakd", "bf16", "init_weights", "adaface", "init_centers", "freeze_centers"):
            if cfg.get(key) not in (None, False):
                raise SystemExit(f"config.{key} needs arcface_cakd: install it, or drop the entry")
        return backbone

    def comm_hook(backbone, hook):
        return hook

    def parameter_groups(backbone, cfg):
        return [{"params": backbone.parameters()}]

    def margin(margin_loss, cfg):
        return margin_loss

    def start_centers(partial_fc, cfg):
        pass

    def observe(partial_fc, local_embeddings):
        pass

    def labels(backbone, batch_labels):
        return batch_labels

    def total_loss(loss, backbone, labels, partial_fc):
        return loss

    def clip_grad_norm(backbone, max_norm):
        return clip_grad_norm_(backbone.parameters(), max_norm)

    def student(backbone):
        return backbone.module

    def save_model(backbone, cfg, train_loader, path):
        save(student(backbone).state_dict(), path)

    def run_state(backbone, partial_fc, amp, cfg=None):
        return {}

    def check_teacher(cfg, backbone):
        pass

    def check_checkpoint(cfg, rank, backbone, partial_fc, optimizer):
        pass

    def resume(cfg, rank, backbone, partial_fc, amp):
        pass

    def log_to(callback, backbone, writer, wandb_logger):
        pass

    def log_line(callback, message, step):
        return message

    def faster_items(train_loader, cfg):
        return train_loader


__all__ = [
    "check_checkpoint",
    "check_config",
    "check_teacher",
    "clip_grad_norm",
    "comm_hook",
    "distill",
    "faster_items",
    "get_model",
    "labels",
    "log_line",
    "log_to",
    "margin",
    "observe",
    "parameter_groups",
    "resume",
    "run_state",
    "save",
    "save_model",
    "start_centers",
    "student",
    "total_loss",
]
