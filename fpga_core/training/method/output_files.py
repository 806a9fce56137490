"""The files that training ends with."""

REPCONTROLNET_FILE = "repcontrolnet.safetensors"
CONTROLNET_FILE = "controlnet.safetensors"
IDENTITY_FILE = "identity_adapter.safetensors"
