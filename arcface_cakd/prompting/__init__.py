"""APT, the Adaptable Prompting Teacher: learnable tokens in a frozen Transformer."""

from arcface_cakd.prompting.adaptable_prompts import AdaptablePrompts
from arcface_cakd.prompting.preservation import Preservation
from arcface_cakd.prompting.route import PromptingError

__all__ = ["AdaptablePrompts", "Preservation", "PromptingError"]
