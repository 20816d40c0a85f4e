"""Final losses, predicted from the known rates and the first losses of trials."""
