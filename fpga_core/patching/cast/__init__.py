"""A cast on ComfyUI: identities in the cross attention of a UNet or a ControlNet."""
