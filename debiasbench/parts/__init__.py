"""Parts that several methods share: losses, averages, groups, contrast, saliency."""
