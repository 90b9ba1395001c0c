"""Code that several rewards share: CLIP, Qwen-VL, and the preparation of pictures and prompts."""
