"""`shapes`: the embedded world of coloured shapes, and the small one-step generator that draws it."""
