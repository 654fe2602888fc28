"""What does not move of a teacher, computed once for every image and read in each step."""

from arcface_cakd.teacher_cache.opening import open_cache
from arcface_cakd.teacher_cache.store import CacheError, TeacherCache, as_features

__all__ = ["CacheError", "TeacherCache", "as_features", "open_cache"]
