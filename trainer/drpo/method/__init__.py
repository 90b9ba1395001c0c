"""The method of the paper, without Ray: the drift field, the objectives and the feature maps.

Where the paper is in the code:

    Algorithm 1, lines 3 to 6      `drpo.training.step`: generate, compute features, rank
    Algorithm 1, lines 7 to 12     `objectives.drpo`: the loss (Eq. 12, 15-17); `drpo.training.trainer`: the update
    Algorithm A2 (Appendix A)      `drift`: the drift field (Eq. 18-26)
    feature map phi (Section 5.1)  `features`
"""
