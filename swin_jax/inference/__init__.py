"""What is done with a trained model: predict, export, similarity, search, attention maps."""
