"""A small stand-in for the WebUI's module of that name."""

script_path = data_path = "/webui"
models_path = "/webui/models"
extensions_dir = "/webui/extensions"
