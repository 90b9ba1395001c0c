"""Does the picture show the text that the prompt quotes? A reader of text, and its comparison with the prompt."""
