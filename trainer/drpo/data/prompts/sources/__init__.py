"""One file per prompt source. Each defines `SOURCE`, which has a line in `PROMPT_SOURCES` of `drpo.data.prompts`."""
