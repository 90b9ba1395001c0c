"""What several rewards compute with: CLIP, Qwen-VL, scaled and cut pictures."""
