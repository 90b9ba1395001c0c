"""The method of the paper, without Ray: the drift field, objectives, feature maps."""
