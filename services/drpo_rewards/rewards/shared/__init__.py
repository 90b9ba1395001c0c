"""What several rewards compute with: CLIP, Qwen-VL, and preparation of pictures and prompts."""
