"""Uses of a trained model: predict, export, similarity, search, attention maps."""
