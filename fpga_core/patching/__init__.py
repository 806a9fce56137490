"""The only package that touches ComfyUI's model patcher."""
