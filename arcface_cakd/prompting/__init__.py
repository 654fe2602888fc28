"""APT, the Adaptable Prompting Teacher: learnable tokens in a frozen Transformer."""

from arcface_cakd.prompting._route import PromptingError
from arcface_cakd.prompting.adaptable_prompts import AdaptablePrompts

__all__ = ["AdaptablePrompts", "PromptingError"]
