"""Acceleration on ComfyUI's models."""
