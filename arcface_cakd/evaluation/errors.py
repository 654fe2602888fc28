"""What evaluation raises for a user's mistake."""

from arcface_cakd.errors import ArcfaceCakdError


class EvaluationError(ArcfaceCakdError, ValueError):
    """Pairs, embeddings or a model that cannot be evaluated; the message says which and why."""
