"""Demo: the student distilled by the method as it is by default, the embedding and URFM."""

from _cakd import cakd
from demo_student import config

config.output = "cakd_demo/cakd"
cakd.teacher.update(network="swin_mini", weights="cakd_demo/teacher/model.pt")
cakd.lr_scale.urfm = 10.0  # so few steps of SGD would leave attention modules where they started
config.cakd = cakd
