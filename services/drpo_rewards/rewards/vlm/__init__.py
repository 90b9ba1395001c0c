"""Questions to a vision-language model about one picture, whose answers are scores."""
